"""What `auto` means on a machine, and how a process is set up to train."""

import importlib.metadata
import platform
import resource
import statistics
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

import kdsweep
from kdsweep.training.fast import machine


@pytest.mark.parametrize(
    ("blas", "onednn", "bf16", "precision", "slow"),
    [
        (6.0, 3.0, 1.5, "bf16", True),  # Zen 5: MKL at half of oneDNN's rate, bfloat16 at twice
        (1.0, 1.0, 0.2, "bf16", False),  # AMX
        (1.0, 1.0, 1.1, "fp32", False),  # a Xeon without it
        (1.0, 1.1, 20.0, "fp32", False),  # bfloat16 emulated
        (2.0, 1.0, 1.0, "fp32", True),  # bfloat16 beats the slow BLAS alone
    ],
)
def test_a_cpu_trains_in_what_it_multiplies_fastest(
    blas: float, onednn: float, bf16: float, precision: str, slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "product_seconds", lambda: {"blas": blas, "onednn": onednn, "bf16": bf16})
    assert machine.best_precision("cpu") == precision
    assert machine.blas_is_slow() == slow


def test_measuring_again_gives_the_same_answer() -> None:
    def answers() -> tuple[str, bool]:
        machine.product_seconds.cache_clear()
        assert all(0 < seconds < 1 for seconds in machine.product_seconds().values())
        return machine.best_precision("cpu"), machine.blas_is_slow()

    threads = torch.get_num_threads()
    assert len({answers() for _ in range(5)}) == 1
    assert torch.get_num_threads() == threads


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
def test_onednn_computes_a_linear_layer() -> None:
    values, weight, bias = torch.randn(3, 5, 8), torch.randn(6, 8), torch.randn(6)
    assert torch.allclose(
        machine.onednn_linear(values, weight, bias), functional.linear(values, weight, bias), atol=1e-5
    )
    assert torch.allclose(machine.onednn_linear(values, weight), functional.linear(values, weight), atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_a_process_that_trains_keeps_its_memory() -> None:
    """The first calls take new memory, as long as something small is put into what the next would reuse; the later ones take none."""
    machine.set_up(torch.get_num_threads())

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        torch.zeros(2**24).add_(1)  # 64 MB: 16,384 pages
        return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before

    assert statistics.median([faults() for _ in range(40)][-9:]) < 1000


def test_packages_without_metadata_cost_no_trial_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = machine.environment("cpu")
    assert installed["kdsweep"] == kdsweep.__version__ and installed["torch"] == importlib.metadata.version("torch")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])  # where importlib looks for metadata
    bare = machine.environment("cpu")
    assert list(bare) == list(installed)
    assert (bare["kdsweep"], bare["torch"]) == (kdsweep.__version__, "-")
