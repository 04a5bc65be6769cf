"""Texts without labels: which are read, which may train, and what is said where none may."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdsweep.config.trial import TrialConfig
from kdsweep.errors import ConfigError, DataError
from kdsweep.training.data.splits import Data, load_data
from kdsweep.training.data.unlabeled import Unlabeled, load_unlabeled, near_key

Config = Callable[..., TrialConfig]
Write = Callable[..., Path]


def load(config: TrialConfig) -> tuple[Unlabeled, Data]:
    data = load_data(config)
    return load_unlabeled(config, data), data


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("The film was great!", "the  film was GREAT"),
        ("Straße № 5", "STRASSE no 5"),
        ("ﬁne, caf\N{LATIN SMALL LETTER E}\N{COMBINING ACUTE ACCENT}", "fine café"),
        ("snake_case", "snake case"),
        ("１２３", "123"),
    ],
)
def test_texts_that_differ_in_case_spaces_punctuation_or_spelling_of_letters_are_near(first: str, second: str) -> None:
    assert near_key(first) == near_key(second)


@pytest.mark.parametrize(
    ("first", "second"), [("a film", "the film"), (":-)", ":-("), ("5 stars", "4 stars"), ("хорошо", "плохо")]
)
def test_other_texts_are_not_near(first: str, second: str) -> None:
    assert near_key(first) != near_key(second)


def test_the_ascii_rule_is_the_general_rule() -> None:
    for text in ("The film, was GREAT!", " a_b-c\t3 ", "?!", "x" * 9):
        assert near_key(text) == near_key(text + "\N{EM DASH}").rstrip("\N{EM DASH}")


def test_what_may_train_is_kept_once_and_all_else_is_counted(tiny_config: Config, write_rows: Write) -> None:
    data = load_data(tiny_config())
    known, held_out = data.train.texts[0], data.validation.texts[0]
    texts = ["a new one", "", "  ", "a new one", "A new one", held_out, f"{held_out.upper()} !", known, "another"]
    texts.append(f"'{known}'")
    path = write_rows("texts.csv", [{"text": text} for text in texts])
    found, _ = load(tiny_config(unlabeled_file=str(path)))
    assert set(found.split.texts) == {"a new one", "A new one", "another"} and found.read == 10
    assert found.dropped == {"empty": 2, "duplicates": 1, "labelled": 2, "held_out": 2}
    assert found.split.labels.tolist() == [-1, -1, -1] and found.split.pairs is None


def test_texts_of_the_test_split_do_not_train(tiny_config: Config, write_rows: Write) -> None:
    config = tiny_config(test_fraction=0.25)
    tested = load_data(config).test
    assert tested is not None
    path = write_rows("texts.jsonl", [{"text": f"{text}."} for text in tested.texts] + [{"text": "new"}])
    found, _ = load(tiny_config(test_fraction=0.25, unlabeled_file=str(path)))
    assert found.split.texts == ("new",) and found.dropped["held_out"] == len(tested)


def test_what_the_limit_leaves_out_trains_without_its_labels(tiny_config: Config, write_rows: Write) -> None:
    found, data = load(tiny_config(train_limit=20, unlabeled_rest=True))
    assert data.rest is not None and len(data.rest) == 52
    assert sorted(found.split.texts) == sorted(data.rest.texts) and set(found.split.labels.tolist()) == {-1}
    path = write_rows("more.csv", [{"text": data.rest.texts[0]}, {"text": "a new one"}])
    both, _ = load(tiny_config(train_limit=20, unlabeled_rest=True, unlabeled_file=str(path)))
    assert set(both.split.texts) == {*data.rest.texts, "a new one"} and both.dropped["duplicates"] == 1


def test_rows_and_their_hash_do_not_depend_on_texts_without_labels(tiny_config: Config, tiny_csv: Path) -> None:
    plain = load_data(tiny_config(train_limit=20))
    other = load_data(tiny_config(train_limit=20, unlabeled_file=str(tiny_csv), unlabeled_rest=True))
    assert plain.sha256() == other.sha256() and plain.sizes() == other.sizes()


def test_a_larger_limit_adds_texts_to_those_of_a_smaller_one(tiny_config: Config) -> None:
    limited = [load(tiny_config(train_limit=20, unlabeled_rest=True, unlabeled_limit=n))[0] for n in (10, 30)]
    assert limited[1].split.texts[:10] == limited[0].split.texts and len(limited[1]) == 30
    assert limited[0].sha256 != limited[1].sha256
    other = load(tiny_config(train_limit=20, unlabeled_rest=True, unlabeled_limit=10, split_seed=1))[0]
    assert set(other.split.texts) != set(limited[0].split.texts)


def test_pairs_are_compared_as_pairs(tiny_config: Config, write_rows: Write) -> None:
    rows = [{"a": f"a {n}", "b": f"b {n}", "label": "xy"[n % 2]} for n in range(40)]
    train = write_rows("pairs.csv", rows)
    texts = [{"a": "A 0!", "b": "b 0"}, {"a": "a 0", "b": "b 1"}, {"a": "a", "b": ""}]
    path = write_rows("texts.csv", texts)
    options: dict[str, Any] = {"train_file": str(train), "text_column": "a", "text_pair_column": "b"}
    found, _ = load(tiny_config(**options, unlabeled_file=str(path)))
    assert (found.split.texts, found.split.pairs) == (("a 0",), ("b 1",))
    assert found.dropped["empty"] == 1 and found.dropped["labelled"] + found.dropped["held_out"] == 1


@pytest.mark.slow
def test_files_are_read_like_the_labelled_ones(tiny_config: Config, tmp_path: Path, wheel: str) -> None:
    packed = tmp_path / "texts.tsv.gz"
    packed.write_bytes(gzip.compress(b"id\ttext\n1\tone, new\n2\ttwo\n"))
    assert len(load(tiny_config(unlabeled_file=str(packed)))[0]) == 2
    assert load(tiny_config(unlabeled_file=wheel.format(path="some_data/rows.csv")))[0].split.texts == ("fine",)


def test_a_split_of_the_hub_is_read_without_its_labels(tmp_path: Path, tiny_config: Config, tiny_rows: Any) -> None:
    import csv

    for name, rows in {"train": tiny_rows, "test": [("something new", "-1"), ("something else", "-1")]}.items():
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    config = tiny_config(train_file=None, dataset=str(tmp_path), unlabeled_split="test")
    assert sorted(load(config)[0].split.texts) == ["something else", "something new"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text\n", "unlabeled_file must hold texts, but .*texts.csv is empty"),
        ("sentence\na new one\n", "must have the columns text, but has sentence: 'text' is missing"),
        ('text\n""\n" "\n', "must be left .* but of 2 all are: 2 empty; name other texts: unlabeled_file"),
    ],
)
def test_a_file_without_texts_is_refused(tiny_config: Config, tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "texts.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        load(tiny_config(unlabeled_file=str(path)))


def test_a_file_of_known_texts_is_refused(tiny_config: Config, tiny_csv: Path) -> None:
    with pytest.raises(
        DataError, match="but of 96 all are: 72 of labelled training rows, 24 of validation or test rows"
    ):
        load(tiny_config(unlabeled_file=str(tiny_csv)))
    with pytest.raises(DataError, match=r"leaves out, but it leaves out none; lower the limit"):
        load(tiny_config(train_limit=5_000, unlabeled_rest=True))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"unlabeled_split": "unsupervised"},
            "dataset is named beside unlabeled_split .* must hold, but got only unlabeled_split",
        ),
        ({"unlabeled_rest": True}, "so train_limit must hold, but got unlabeled_rest: true with train_limit: null"),
        (
            {"unlabeled_limit": 5},
            r"texts without labels are named \(unlabeled_file, .*\) beside unlabeled_limit must hold",
        ),
        (
            {"unlabeled_share": 0.5, "pseudo_labels": True},
            "beside unlabeled_share and pseudo_labels must hold, but got none",
        ),
    ],
)
def test_fields_that_do_not_go_together_are_refused(tiny_config: Config, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_config(**fields)


def test_a_file_goes_with_a_dataset_of_the_hub_and_its_own_delimiter() -> None:
    TrialConfig(dataset="some/data", teacher="bert", teacher_epochs=1, unlabeled_file="texts.csv", csv_delimiter=";")
