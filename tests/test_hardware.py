"""How many workers a machine makes."""

import os

import pytest

from kdsweep import hardware


@pytest.mark.parametrize(
    ("visible", "device", "each", "groups"),
    [
        ("0,1,2", "auto", 1, ["0", "1", "2"]),
        ("0, 1,2,3,4", "auto", 2, ["0,1", "2,3"]),
        ("0", "auto", 2, []),
        ("0,1", "cuda:1", 1, []),
        ("0,1", "cpu", 1, []),
        ("", "auto", 1, []),
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
    assert 1 <= hardware.available_cores() <= (os.cpu_count() or 1)
