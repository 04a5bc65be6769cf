"""What `auto` means on a machine."""

import pytest
import torch

from kdsweep import machine


@pytest.mark.parametrize(("amx", "precision"), [(True, "bf16"), (False, "fp32")])
def test_a_cpu_trains_in_bfloat16_only_with_amx(amx: bool, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert machine.best_precision("cpu") == precision
