"""Every shipped sweep file loads, and says what it promises."""

from pathlib import Path

import pytest

from kdsweep.config.sweep_file import load_sweep

FILES = sorted((Path(__file__).parent.parent / "sweeps").rglob("*.yaml"))

GLUE = {"cola", "mnli", "mrpc", "qnli", "qqp", "rte", "stsb"}


def test_there_are_sweep_files() -> None:
    assert {path.stem for path in FILES} == {
        "T_alpha",
        "clinc150",
        "emotions",
        "few_labels",
        "pairs",
        "similarity",
        "smoke",
        "sst2_distilbert",
        "students",
        *GLUE,
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_loads_under_its_own_name_and_searches_temperature_and_alpha_from_plain_recipes(path: Path) -> None:
    sweep = load_sweep(path)
    assert sweep.name == path.stem
    assert {"alpha", "learning_rate"} <= set(sweep.search)
    assert ("batch_size" in sweep.search) is not sweep.has_unlabeled()  # of equal steps, equal rows
    assert sweep.search["alpha"].holds(1.0) and sweep.search["alpha"].holds(0.0) is not sweep.has_unlabeled()
    assert sweep.enqueue[0]["alpha"] == 1.0
    if sweep.fixed.get("task") == "regression":  # whose outputs no temperature softens
        assert "temperature" not in {*sweep.search, *sweep.enqueue[0]}
    else:
        assert sweep.search["temperature"].holds(1.0) and sweep.enqueue[0]["temperature"] == 1.0


def test_the_main_sweep_has_ten_trials_an_arm() -> None:
    sweep = load_sweep(next(path for path in FILES if path.stem == "T_alpha"))
    assert (sweep.budget("distilled"), sweep.budget("fine_tuned")) == (10, 10)
