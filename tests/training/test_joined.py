"""Texts without labels beside the labelled rows: joined, taught, kept in the cache, and shared by whoever needs them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdsweep.config.trial import TrialConfig
from kdsweep.system.wheels import cache_root
from kdsweep.training import joined as joining
from kdsweep.training.data import kept as keeping
from kdsweep.training.data.tokens import Rows, padded
from kdsweep.training.shared import Materials
from kdsweep.training.tasks import has_label

Config = Callable[..., TrialConfig]
TEXTS: dict[str, Any] = {"train_limit": 20, "unlabeled_rest": True}


def equal(first: Rows, second: Rows) -> bool:
    """Whether every batch of both is the same to the bit."""
    every = np.arange(len(first.labels))
    batches = [padded(rows.tokens, every).inputs for rows in (first, second)]
    same = all(torch.equal(batches[0][name], batches[1][name]) for name in batches[0])
    same &= all(torch.equal(values, second.targets[name]) for name, values in first.targets.items())
    return same and torch.equal(first.labels, second.labels)


def test_labelled_rows_come_first_then_the_texts_without_a_label(tiny_config: Config) -> None:
    materials, config = Materials(), tiny_config(**TEXTS)
    rows, validation = materials.rows(config)
    plain, other = materials.rows(tiny_config(train_limit=20))
    assert (len(rows.labels), rows.extra, len(plain.labels)) == (72, 52, 20)
    assert torch.equal(rows.labels[:20], plain.labels) and set(rows.labels[20:].tolist()) == {-1}
    assert rows.labeled is not None and rows.labeled.tolist() == [True] * 20 + [False] * 52
    assert equal(rows.take(np.arange(20)), plain) and validation is other
    texts = materials.unlabeled(config)
    whole = materials.data(tiny_config()).train
    assert texts is not None
    place = [whole.texts.index(text) for text in texts.split.texts]
    logits = Materials().rows(tiny_config())[0].teacher_logits[place]
    torch.testing.assert_close(rows.teacher_logits[20:], logits)


def test_with_pseudo_labels_every_row_has_one_and_the_rest_is_shared(tiny_config: Config) -> None:
    materials = Materials()
    rows, _ = materials.rows(tiny_config(**TEXTS))
    named, _ = materials.rows(tiny_config(**TEXTS, pseudo_labels=True))
    assert named.labeled is None and named.extra == 52
    assert torch.equal(named.labels[20:], rows.teacher_logits[20:].argmax(dim=-1))
    assert torch.equal(named.labels[:20], rows.labels[:20]) and named.targets is rows.targets


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_texts_get_no_label_or_what_the_teacher_decides_in_every_task(
    task: str, tiny_config: Config, tiny_body: Path, tiny_rows: list[tuple[str, str]], write_rows: Callable[..., Path]
) -> None:
    several = task == "multi_label"
    labels: list[Any] = [["a"], ["a", "b"], []] if several else [1.5, 2.5, -4.0]
    content = [{"text": text, "label": labels[place % 3]} for place, (text, _) in enumerate(tiny_rows)]
    outputs = {"prob_a": 0.9, "prob_b": 0.2} if several else {"prediction": 3.25}
    files = {"train_file": content[:60], "unlabeled_file": [{"text": row["text"]} for row in content[60:]]}
    files["teacher_file"] = [{"text": row["text"], **outputs} for row in content]
    paths = {name: str(write_rows(f"{name}.jsonl", rows)) for name, rows in files.items()}
    student = {"teacher": None, "student": str(tiny_body), "student_layers": 6, "student_init": "pretrained"}
    materials, config = Materials(), tiny_config(**paths, **student)
    rows = materials.rows(config)[0]
    named = materials.rows(tiny_config(**paths, **student, pseudo_labels=True))[0]
    known = len(materials.data(config).train)
    assert (rows.task, rows.extra, len(rows.labels)) == (task, 36, known + 36)
    assert has_label(rows.labels).tolist() == [True] * known + [False] * 36 and has_label(named.labels).all()
    assert rows.labels.dtype == named.labels.dtype == torch.float32
    assert named.labels[known:].tolist() == [[1.0, 0.0] if several else 3.25] * 36
    assert torch.equal(named.labels[:known], rows.labels[:known])
    expected = [np.log(9), np.log(0.25)] if several else [3.25]
    np.testing.assert_allclose(rows.teacher_logits[-1], expected, rtol=1e-6)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many parts, as of many texts."""
    monkeypatch.setattr(joining, "PART_ROWS", 20)
    monkeypatch.setattr("kdsweep.training.data.splits.ROWS_AT_ONCE", 20)
    monkeypatch.setattr("kdsweep.training.data.progress.TOLD_SECONDS", 0.0)


def is_mapped(tensor: torch.Tensor) -> bool:
    """Whether a tensor's numbers lie in a file of the cache."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    ends = [tuple(int(end, 16) for end in line.split()[0].split("-")) for line in maps if "/arrays/" in line]
    return any(first <= tensor.data_ptr() < last for first, last in ends)


def entries() -> list[Path]:
    return sorted((cache_root() / "arrays").iterdir())


def test_rows_in_a_file_are_those_in_memory_to_the_bit(
    tiny_config: Config, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(**TEXTS)
    held, _ = Materials().rows(config)
    assert not is_mapped(held.tokens.ids) and not is_mapped(held.teacher_logits)
    monkeypatch.setattr(keeping, "MAPPED_BYTES", 0)
    mapped, _ = Materials().rows(config)
    assert is_mapped(mapped.tokens.ids) and is_mapped(mapped.teacher_logits)
    assert equal(held, mapped) and mapped.tokens.ids.dtype == torch.int32
    assert torch.equal(held.tokens.pieces, mapped.tokens.pieces)
    assert len(entries()) == 3  # tokens of the texts, joined tokens, joined logits


@pytest.mark.parametrize("damage", [lambda b: b[:-3], lambda b: b[:-3] + b"\x01\x02\x03", lambda b: b""])
def test_torn_arrays_are_made_again(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(keeping, "MAPPED_BYTES", 0)
    config = tiny_config(**TEXTS)
    expected, _ = Materials().rows(config)
    files = {path: path.read_bytes() for folder in entries() for path in folder.iterdir()}
    for path, content in files.items():
        path.unlink()  # a mapped file must not change below those who read it
        path.write_bytes(damage(content))
    found, _ = Materials().rows(config)
    assert equal(found, expected) and {path: path.read_bytes() for path in files} == files


def test_the_teacher_is_asked_in_parts_and_goes_on_after_the_last_one(
    tiny_config: Config, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, asked, told = tiny_config(**TEXTS), [], []
    expected, _ = Materials().rows(tiny_config(**TEXTS))
    for entry in (cache_root() / "logits").iterdir():
        entry.unlink()
    compute = joining.teacher_targets

    def stopped(teacher: Any, tokens: Any) -> Any:
        asked.append(len(tokens.lengths))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return compute(teacher, tokens)

    monkeypatch.setattr(joining, "teacher_targets", stopped)
    with pytest.raises(KeyboardInterrupt):
        Materials().rows(config)
    assert asked == [20, 20, 12]
    monkeypatch.setattr(joining, "teacher_targets", compute)
    kept = {path: path.stat().st_mtime_ns for path in (cache_root() / "logits").iterdir()}
    found, _ = Materials(lambda *done: told.append(done)).rows(config)
    assert equal(found, expected)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    monkeypatch.setattr(keeping, "MAPPED_BYTES", 0)
    assert equal(Materials(lambda *done: told.append(done)).rows(config)[0], expected)
    of_texts = [each for each in told if each[-1] == "texts"]
    assert of_texts == [("the teacher's logits", done, 52, "texts") for done in (20, 40, 52)] * 2  # tokens were there


def test_two_who_need_an_entry_make_it_once(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    made = []

    def make() -> Iterator[dict[str, np.ndarray]]:
        made.append(1)
        yield {"numbers": np.arange(3)}
        yield {"numbers": np.arange(2)}

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: keeping.kept("k", make)["numbers"], range(4)))
    assert len(made) == 1 and all(numbers.tolist() == [0, 1, 2, 0, 1] for numbers in found)
    found[0][0] = 9  # a change stays with who made it
    assert keeping.kept("k", make)["numbers"].tolist() == [0, 1, 2, 0, 1]


def test_arms_share_all_but_the_texts(tiny_config: Config) -> None:
    materials = Materials()
    distilled, fine_tuned = tiny_config(**TEXTS), tiny_config(train_limit=20)
    for config in (distilled, fine_tuned):
        materials.rows(config)
        materials.student(config)
    assert materials.data(distilled) is materials.data(fine_tuned)
    assert materials.teacher(distilled) is materials.teacher(fine_tuned)
    kinds = [key[0] for key in materials._made]
    assert len(materials._students._kept) == kinds.count("teacher") == kinds.count("rows of train") == 1
