"""What a processor has for 8-bit integers, and what is said where it has nothing."""

from pathlib import Path

import pytest

from kdsweep.shipping import processor
from kdsweep.shipping.processor import cpu_flags, without_vnni


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_vnni amx_int8", ("avx2", "avx512", "vnni", "amx")),
        ("flags : sse4_2 avx2 avx_vnni", ("avx2", "vnni")),
        ("flags : sse4_2", ()),
        ("Features\t: fp asimd asimddp i8mm", ("dotprod", "i8mm")),
    ],
)
def test_flags_are_read_as_linux_lists_them(tmp_path: Path, line: str, names: tuple[str, ...]) -> None:
    facts = tmp_path / "cpuinfo"
    facts.write_text(f"model name : a processor\n{line}\n", "utf-8")
    assert cpu_flags(facts) == names
    assert cpu_flags(tmp_path / "none") == ()


def test_what_the_lack_of_vnni_costs_is_said_with_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor.platform, "machine", lambda: "x86_64")
    said = without_vnni(("avx2",), int8_ms=5.0, fp32_ms=4.0)
    assert said is not None and "no VNNI" in said and "1.25 times the time of ONNX in float32" in said
    assert without_vnni(("avx2", "vnni"), 5.0, 4.0) is None
    assert without_vnni((), 5.0, 4.0) is None, "nothing is known where Linux does not say it"
    monkeypatch.setattr(processor.platform, "machine", lambda: "aarch64")
    assert without_vnni(("dotprod",), 5.0, 4.0) is None
