"""Hub names, read by the Hugging Face libraries' own code from a cache laid out as the hub's downloads are."""

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import safetensors.torch
import torch
from huggingface_hub import constants

from kdsweep.config.trial import TrialConfig
from kdsweep.errors import DataError, ModelError
from kdsweep.training.data.splits import load_data
from kdsweep.training.data.tokens import load_tokenizer
from kdsweep.training.models import load_classifier
from kdsweep.training.resolve import resolve
from kdsweep.training.shared import Materials

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_teacher(tiny_classifier: Path) -> str:
    """`somebody/tiny-teacher`, downloaded at COMMIT."""
    repository = Path(constants.HF_HUB_CACHE) / "models--somebody--tiny-teacher"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(COMMIT)
    shutil.copytree(tiny_classifier, repository / "snapshots" / COMMIT, dirs_exist_ok=True)
    return "somebody/tiny-teacher"


def test_a_hub_teacher_is_pinned_to_the_commit_that_its_name_means_today(
    hub_teacher: str, tiny_config: Callable[..., TrialConfig]
) -> None:
    config = resolve(asdict(tiny_config(teacher=hub_teacher, teacher_revision="auto")), threads=1)
    assert config.teacher_revision == COMMIT and config.unresolved() == ()
    by_name, by_path = Materials().teacher(config), Materials().teacher(tiny_config())
    assert by_name.weights_sha256 == by_path.weights_sha256


def test_a_hub_name_without_a_tokenizers_files_is_refused(tiny_classifier: Path) -> None:
    snapshot = Path(constants.HF_HUB_CACHE) / "models--somebody--wordless" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny_classifier / name, snapshot)
    with pytest.raises(ModelError, match=r"'somebody/wordless' must hold a tokenizer.* nor vocab\.txt"):
        load_tokenizer("somebody/wordless", COMMIT)


def test_pickled_weights_of_the_hub_come_with_the_lines_that_convert_them_into_a_folder(
    tiny_body: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = Path(constants.HF_HUB_CACHE) / "models--somebody--pickled" / "snapshots" / COMMIT
    shutil.copytree(tiny_body, snapshot)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text(COMMIT)
    torch.save(safetensors.torch.load_file(snapshot / "model.safetensors"), snapshot / "pytorch_model.bin")
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="convert them into the folder pickled, to be named instead") as told:
        load_classifier("somebody/pickled", COMMIT, ("negative", "positive"), seed=0)
    monkeypatch.chdir(tmp_path)
    exec("\n".join(line.strip() for line in str(told.value).splitlines()[-3:]), {})
    load_classifier("pickled", None, ("negative", "positive"), seed=0)
    load_tokenizer("pickled", None)


def test_a_hub_dataset_is_pinned_too(tiny_config: Callable[..., TrialConfig]) -> None:
    repository = Path(constants.HF_HUB_CACHE) / "datasets--somebody--reviews"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "snapshots" / COMMIT).mkdir(parents=True, exist_ok=True)
    (repository / "snapshots" / COMMIT / ".gitattributes").touch()
    config = tiny_config(train_file=None, dataset="somebody/reviews", dataset_revision="auto")
    assert resolve(asdict(config), threads=1).dataset_revision == COMMIT
    with pytest.raises(DataError, match="Check the name, split and network"):
        resolve(asdict(tiny_config(train_file=None, dataset="somebody/else", dataset_revision="auto")), threads=1)


def test_a_dataset_by_name_is_read_by_its_splits(
    write_rows: Callable[..., Path], tiny_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    folder = tmp_path / "reviews"
    folder.mkdir()
    for split, count in (("train", 12), ("validation", 6), ("test", 4)):
        rows = [(f"{split} {number}", "good" if number % 2 else "bad") for number in range(count)]
        write_rows(f"{split}.csv", rows).rename(folder / f"{split}.csv")
    named = {"train_file": None, "dataset": str(folder), "validation_split": "validation", "test_split": "test"}
    data = load_data(resolve(asdict(tiny_config(**named, dataset_revision="auto")), threads=1))
    assert data.test is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (12, 6, 4)
    assert data.validation.texts[0] == "validation 0"
