"""Measure the memory of a process that has one form of a student and nothing else: `python -m kdsweep.shipping.resident FOLDER FORM`."""

import subprocess
import sys
from pathlib import Path

from kdsweep.errors import ShippingError

TEXT = "a text of a few words"


def resident_mb(folder: Path, form: str, *, max_length: int) -> float | None:
    """Return the resident megabytes (10⁶ bytes) of a process that loaded `form` and answered one row; None where the system is not Linux.

    Raises ShippingError with what the process said where it failed.
    """
    command = [sys.executable, "-m", "kdsweep.shipping.resident", str(folder), form, str(max_length)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ShippingError(
            f"{form} in {folder} must answer in a process of its own, but: {done.stderr.strip()[-400:]}"
        )
    told = done.stdout.split()[-1]
    return None if told == "unknown" else float(told)


def answer(folder: Path, form: str, max_length: int) -> None:
    """Load `form` of the student in `folder` on one thread, and let it answer a row."""
    if form == "pytorch":
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        torch.set_num_threads(1)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
        )
        with torch.inference_mode():
            model.eval()(**tokenizer(TEXT, truncation=True, max_length=max_length, return_tensors="pt"))
    else:
        from kdsweep.shipping.session import OnnxClassifier

        OnnxClassifier(folder, form, 1, max_length=max_length).logits([TEXT])


def _resident() -> str:
    facts = Path("/proc/self/status")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.exists() else []
    told = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
    return f"{int(told[0]) * 1024 / 1e6:.1f}" if told else "unknown"


if __name__ == "__main__":
    answer(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    print(_resident())
