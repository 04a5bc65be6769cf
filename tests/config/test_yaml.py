"""YAML in and out: what kdsweep wrote is read fast, and as any other file."""

from pathlib import Path

import pytest

from kdsweep.config.yaml import read_recorded_yaml, read_yaml, to_yaml
from kdsweep.errors import ConfigError


def test_a_recorded_file_is_read_as_any_other_whatever_its_texts_look_like(tmp_path: Path) -> None:
    texts = [
        "",
        "null",
        "yes",
        "007",
        "1e5",
        "1e-5",
        ".5",
        "2020-01-01",
        "a: b",
        "${oops",
        "é\n\t",
        "0x1F",
        "1_000",
        "~",
    ]
    content = {"texts": texts, "numbers": [1e-5, 1e22, 5e-324, -0.1, 3], "none": None, "flag": True, "07": "key"}
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml({**content, "texts": [text for text in texts if "${" not in text]}), encoding="utf-8")
    assert read_recorded_yaml(path) == read_yaml(path) and read_yaml(path)["numbers"] == content["numbers"]
    path.write_text("a: ${b}\nb: 3\n", encoding="utf-8")
    assert read_recorded_yaml(path) == {"a": 3, "b": 3}, "a reference of an edited file"
    for broken in ("a: [", "a: 1\na: 2\n", "- 1\n"):
        path.write_text(broken, encoding="utf-8")
        with pytest.raises(ConfigError, match="must"):
            read_recorded_yaml(path)


def test_a_file_whose_entries_do_not_stand_alone_is_read_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    quoted = 'a: "one\nb: two"\nc: 3\n'
    for text in (
        quoted,
        "a: {x: 1}\nb:\n  c: 2\n",
        "a: &n [1, 2]\nb: *n\n",
        "'07': 1\n7: 2\n",
        "x: 1\n? y\n: 2\n",
        "07: 1\n7: 2\n",
        "a:\n- 1\n- b: 2\n",
    ):
        path.write_text(text, encoding="utf-8")
        assert read_recorded_yaml(path) == read_yaml(path), text
    for broken in ("a: 1\n---\nb: 2\n", "a: 1\n...\nb: 2\n"):
        path.write_text(broken, encoding="utf-8")
        with pytest.raises(ConfigError, match="must"):
            read_recorded_yaml(path)


def test_lists_of_two_files_with_the_same_line_are_not_one_list(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("layers:\n- 0\n- 1\n", encoding="utf-8")
    read_recorded_yaml(path)["layers"].append(2)
    assert read_recorded_yaml(path) == {"layers": [0, 1]}
