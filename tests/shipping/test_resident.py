"""The memory of a form, measured in a process of its own."""

import sys
from pathlib import Path

import numpy as np
import pytest
from onnx_models import write_onnx, write_words

from kdsweep.errors import ShippingError
from kdsweep.shipping import resident
from kdsweep.shipping.resident import resident_mb


def test_a_form_answers_in_a_process_of_its_own(tmp_path: Path) -> None:
    write_words(tmp_path)
    write_onnx(tmp_path / "onnx" / "model.onnx", np.zeros((8, 2)))
    found = resident_mb(tmp_path, "fp32", max_length=8)
    assert (found is not None and 20 < found < 400) if sys.platform == "linux" else found is None


def test_a_process_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident.sys, "executable", "/bin/false")
    with pytest.raises(ShippingError, match=f"int8 in {tmp_path} must answer in a process of its own"):
        resident_mb(tmp_path, "int8", max_length=8)
