"""How many workers a machine makes."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from kdsweep.system import hardware


@pytest.mark.parametrize(
    ("visible", "device", "each", "groups"),
    [
        ("0,1,2", "auto", 1, ["0", "1", "2"]),
        ("0, 1,2,3,4", "auto", 2, ["0,1", "2,3"]),
        ("0", "auto", 2, []),
        ("0,1", "cuda:1", 1, []),
        ("0,1", "cpu", 1, []),
        ("", "auto", 1, []),
        ("-1", "auto", 1, []),
        ("0,-1,1", "auto", 1, ["0"]),
    ],
)
def test_cuda_devices_are_shared_out_among_the_workers(
    visible: str, device: str, each: int, groups: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert hardware.device_groups(device, each) == groups


@pytest.mark.parametrize(
    ("cores", "visible", "device", "each", "workers"),
    [
        (1, "", "auto", 1, 1),
        (2, "", "auto", 1, 2),
        (2, "-1", "auto", 1, 2),
        (16, "", "cpu", 1, 2),
        (2, "", "auto", 2, 1),
        (4, "", "auto", 2, 2),
        (16, "0,1,2", "auto", 1, 3),
        (16, "0,1,2", "auto", 2, 1),
        (16, "0,1", "cuda:1", 1, 1),
    ],
)
def test_one_worker_for_each_group_of_gpus_and_two_on_a_cpu_that_has_the_cores(
    cores: int, visible: str, device: str, each: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(hardware, "available_cores", lambda: cores)
    assert hardware.default_workers(device, each) == workers


def test_the_cores_are_those_that_this_process_may_use() -> None:
    before = os.sched_getaffinity(0)
    assert hardware.available_cores() == len(before)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert hardware.available_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_the_gpus_are_those_that_nvidia_smi_lists_where_the_environment_names_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert hardware.cuda_devices() == []
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\n[ \"$1\" = --list-gpus ] && echo 'GPU 0: one' && echo 'GPU 1: two' && echo '  MIG 1g'\n"
    )
    tool.chmod(0o755)
    assert hardware.cuda_devices() == ["0", "1"]


@pytest.mark.parametrize(
    ("given", "spin_count"),
    [({}, str(hardware.SPIN_COUNT)), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, "0")],
)
def test_threads_spin_for_a_bounded_time_unless_the_environment_says_otherwise(
    given: dict[str, str], spin_count: str, tmp_path: Path
) -> None:
    """The library itself tells what it read, in a process of its own: it reads once, when it is loaded."""
    assert (torch := find_spec("torch")) is not None and torch.origin is not None
    libraries = [
        *Path(torch.origin).parent.glob("lib/libgomp*"),
        *Path(torch.origin).parent.glob("../torch.libs/libgomp*"),
    ]
    code = f"import ctypes\nfrom kdsweep.system.hardware import bound_spinning\nbound_spinning()\nctypes.CDLL({str(libraries[0])!r})"
    plain = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={**plain, **given, "OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"GOMP_SPINCOUNT = '{spin_count}'" in told.stderr
