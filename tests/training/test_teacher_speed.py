"""A teacher's speed is measured once on a machine."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kdsweep.config.trial import TrialConfig
from kdsweep.system.wheels import cache_root
from kdsweep.training.evaluation import Speed
from kdsweep.training.shared import Materials

Config = Callable[..., TrialConfig]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Speed]:
    """What is measured, each time faster; the cache is new."""
    monkeypatch.setenv("KDSWEEP_CACHE", str(tmp_path / "cache"))
    found: list[Speed] = []

    def measure(*_: object) -> Speed:
        found.append(Speed(8.0 - len(found), 9.5, 100.25))
        return found[-1]

    monkeypatch.setattr("kdsweep.training.teacher_speed.measure_speed", measure)
    return found


def test_a_second_sweep_of_the_same_teacher_takes_its_speed_from_the_cache(
    tiny_config: Config, measured: list[Speed]
) -> None:
    speeds = [Materials().teacher_speed(tiny_config()) for _ in range(2)]
    assert speeds == [measured[0]] * 2 and len(measured) == 1
    assert Materials().teacher_speed(tiny_config(max_length=8)) == measured[1]  # other tokens


def test_a_torn_entry_is_measured_again(tiny_config: Config, measured: list[Speed]) -> None:
    Materials().teacher_speed(tiny_config())
    (path,) = (cache_root() / "speeds").iterdir()
    for torn in ("", "[]", '{"latency_ms_p50": 1}'):
        path.write_text(torn, encoding="utf-8")
        assert Materials().teacher_speed(tiny_config()) == measured[-1]
    assert len(measured) == 4
