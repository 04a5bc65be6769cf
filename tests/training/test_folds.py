"""A teacher for each fold: no row is taught by one that has seen it, the others by all, each fold once and side by side."""

import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdsweep.config.trial import TrialConfig
from kdsweep.errors import AssetError, ConfigError, DataError, Interrupted
from kdsweep.records.schema import StepMetrics
from kdsweep.system.files import Lock
from kdsweep.system.process import StopRequest
from kdsweep.system.wheels import cache_root
from kdsweep.training import fine_tuning, folds
from kdsweep.training.checkpoints import Checkpointing
from kdsweep.training.data.splits import Data, Split, SplitName
from kdsweep.training.data.tokens import Rows
from kdsweep.training.fine_tuning import FineTuned, Made
from kdsweep.training.folds import fold_of_rows
from kdsweep.training.input_checks import check_inputs
from kdsweep.training.shared import Materials
from kdsweep.training.teacher import UNWATCHED, Teacher, TeacherWatch
from kdsweep.training.teacher_logits import log_mean_probability, member_logits
from kdsweep.training.teacher_quality import out_of_fold_quality, quality

Config = Callable[..., TrialConfig]
SPLITS: tuple[SplitName, ...] = ("train", "validation")


@pytest.fixture
def folded(tiny_config: Config, tiny_body: Path) -> Config:
    """A config of three folds, with one short epoch each; keywords change any field."""
    fields: dict[str, Any] = {"teacher": str(tiny_body), "teacher_epochs": 1, "teacher_folds": 3}
    fields |= {"teacher_learning_rate": 3e-3, "teacher_batch_size": 32}
    return lambda **changes: tiny_config(**{**fields, **changes})


def data_of(classes: str, texts: Sequence[str] | None = None) -> Data:
    """Rows of the classes `a`, `b`, … in this order, with these texts or one of each row's own."""
    names = tuple(sorted(set(classes)))
    labels = np.array([names.index(each) for each in classes])
    train = Split(texts=tuple(texts or map(str, range(len(classes)))), pairs=None, labels=labels)
    return Data(train=train, validation=train, test=None, label_names=names, duplicates_dropped=0)


class Planted:
    """Takes the place of the training: a member's logits are the number of the fine-tuning, and the rows that it saw are noted."""

    def __init__(self) -> None:
        self.seen: list[set[int]] = []

    def __call__(self, model: Any, train: Rows, *given: Any, **named: Any) -> tuple[Any, Any]:
        self.seen.append(set(train.tokens.starts.tolist()))
        with torch.no_grad():
            model.classifier.weight.zero_()
            model.classifier.bias.copy_(torch.tensor([float(len(self.seen)), 0.0]))
        return type("Training", (), {"kept": None}), None


# Which row lies in which fold ----------------------------------------------------------------------------------------


def test_folds_share_every_class_evenly_and_equal_texts_lie_in_one(tiny_config: Config) -> None:
    classes = "a" * 31 + "b" * 7 + "c" * 12
    data = data_of("".join(np.random.default_rng(0).permutation(list(classes))))
    config = tiny_config(teacher="t", teacher_epochs=1, teacher_folds=5)
    folds = fold_of_rows(data, config)
    counts = np.array(
        [[((folds == fold) & (data.train.labels == label)).sum() for label in range(3)] for fold in range(5)]
    )
    assert (counts.max(axis=0) - counts.min(axis=0) <= 1).all() and set(counts.sum(axis=1)) == {10}
    assert (fold_of_rows(data, config) == folds).all()
    assert (fold_of_rows(data, dataclasses.replace(config, split_seed=1)) != folds).any()
    assert (fold_of_rows(data, dataclasses.replace(config, teacher_seed=1)) == folds).all()


def test_rows_with_one_text_lie_in_one_fold_whatever_their_labels(tiny_config: Config) -> None:
    texts = [f"text {row // 3}" for row in range(36)]
    data = data_of("aabbba" * 6, texts)
    folds = fold_of_rows(data, tiny_config(teacher="t", teacher_epochs=1, teacher_folds=4))
    assert all(len(set(folds[row : row + 3])) == 1 for row in range(0, 36, 3)) and len(set(folds)) == 4


def test_a_fold_for_every_text_of_the_smallest_class_is_the_most_there_can_be(tiny_config: Config) -> None:
    config = tiny_config(teacher="t", teacher_epochs=1, teacher_folds=3)
    assert set(fold_of_rows(data_of("aaaabbb"), config).tolist()) == {0, 1, 2}
    with pytest.raises(
        DataError, match=r"teacher_folds <= training texts of every class must hold, but got 3 and 2 of 'b'"
    ):
        fold_of_rows(data_of("aaaabbb", ["1", "2", "3", "4", "same", "same", "other"]), config)


def test_folds_need_a_teacher_that_is_fine_tuned_here_and_are_refused_before_it_is(folded: Config) -> None:
    with pytest.raises(
        ConfigError, match=r"teacher_folds > 1 goes with teachers that are fine-tuned here .* teacher_epochs: 0"
    ):
        folded(teacher_epochs=0)
    with pytest.raises(DataError, match=r"but got 40 and 36 of 'negative'; lower teacher_folds"):
        check_inputs(Materials(), [folded(teacher_folds=40)], largest_batch=8, splits=SPLITS)


# Which teacher gives which row ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_row_gets_logits_from_a_teacher_that_saw_it(folded: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    planted, config, materials = Planted(), folded(), Materials()
    monkeypatch.setattr(fine_tuning, "distill", planted)
    train, validation = materials.teacher_rows(config)
    givers = train.teacher_logits[:, 0].int().tolist()  # column 0: the dataset's first class
    assert set(givers) == {1, 2, 3}
    for start, giver in zip(train.tokens.starts.tolist(), givers, strict=True):
        assert [start in seen for seen in planted.seen] == [number != giver for number in (1, 2, 3)]
    mean = np.mean([torch.softmax(torch.tensor([giver, 0.0]), 0).numpy() for giver in (1.0, 2.0, 3.0)], axis=0)
    assert torch.allclose(validation.teacher_logits, torch.from_numpy(mean).log().expand(24, 2))
    students = materials.rows(config)[0]
    assert torch.equal(students.teacher_logits, train.teacher_logits)


def test_the_mean_of_probabilities_is_finite_where_the_probabilities_are_not(tiny_config: Config) -> None:
    logits = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.softmax(logits.double(), -1).mean(0).log()
    assert torch.allclose(log_mean_probability(logits).double(), expected, atol=1e-6)
    far = log_mean_probability(torch.tensor([[[3000.0, 0.0, -3000.0]], [[3000.0, 0.0, -2000.0]]]))
    assert far.isfinite().all() and far.dtype == torch.float32 and float(far[0, 1]) == -3000.0


@pytest.mark.slow
def test_seen_rows_are_each_members_own_and_unseen_ones_the_others(folded: Config) -> None:
    materials, config = Materials(), folded()
    teacher, train = materials.teacher(config), materials.teacher_rows(config)[0]
    assert teacher.fold_of is not None
    each = torch.stack([member_logits(teacher, member, train.tokens) for member in teacher.members])
    fold_of = torch.from_numpy(teacher.fold_of)
    seen = [quality(each[fold][fold_of != fold], train.labels[fold_of != fold]) for fold in range(3)]
    assert materials.teacher_on_seen_rows(config) == pytest.approx(np.mean(seen, axis=0))
    unseen = each[fold_of, torch.arange(len(fold_of))]
    assert out_of_fold_quality(teacher, train) == quality(unseen, train.labels)


def test_one_teachers_seen_rows_are_its_training_rows(tiny_config: Config) -> None:
    materials, config = Materials(), tiny_config()
    train = materials.teacher_rows(config)[0]
    assert materials.teacher_on_seen_rows(config) == quality(train.teacher_logits, train.labels)
    assert out_of_fold_quality(materials.teacher(config), train) is None


# Once, and side by side ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_each_folds_teacher_and_its_logits_are_cached_and_found_again(
    folded: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, first = folded(), Materials()
    train, validation = first.rows(config)
    names = {path.name for path in (cache_root() / "teachers").iterdir()}
    assert len(names) == 3 and len(list((cache_root() / "logits").iterdir())) == 6
    monkeypatch.setattr(fine_tuning, "distill", None)  # would raise
    again, made = Materials(), first.teacher(config)
    found = again.teacher(config)
    assert (made.from_cache, found.from_cache) == (False, True)
    assert (found.weights_sha256, found.epochs) == (made.weights_sha256, made.epochs) and len(found.epochs) == 1
    assert torch.equal(again.rows(config)[0].teacher_logits, train.teacher_logits)
    assert torch.equal(again.rows(config)[1].teacher_logits, validation.teacher_logits)
    kept = sorted((cache_root() / "teachers").iterdir())[0]
    (kept / "made.json").unlink()
    with pytest.raises(AssetError, match="the cache must keep .* the same command makes it again"):
        for member in found.members:
            member.load()


def interrupted_after(steps: int, config: TrialConfig) -> None:
    """Fine-tune until so many steps of one fold are told, then stop as a signal does."""
    stop = StopRequest()

    def ask(told: Sequence[StepMetrics]) -> None:
        if told[-1].step >= steps:
            stop.ask()

    watch = TeacherWatch(
        on_steps=ask, on_epoch=lambda _: None, checkpointing=Checkpointing(every_seconds=0.0, stop=stop)
    )
    with pytest.raises(Interrupted):
        Materials().teacher(config, dataclasses.replace(watch, on_fold=lambda fold, rows: watch))


@pytest.mark.slow
def test_a_fold_goes_on_where_it_was_cut_off_with_the_same_bits(
    folded: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = folded(teacher_folds=2, teacher_epochs=4, teacher_keep="lowest_loss", train_limit=16)
    whole = Materials().teacher(config)
    monkeypatch.setenv("KDSWEEP_CACHE", str(tmp_path / "other"))
    interrupted_after(3, config)  # one step an epoch
    again = Materials().teacher(config)
    assert min(whole.kept_epochs) <= 3, "an epoch before the interruption is kept; else this test shows less"
    assert (again.weights_sha256, again.kept_epochs) == (whole.weights_sha256, whole.kept_epochs)
    assert [epoch.val_loss for epoch in again.epochs] == [epoch.val_loss for epoch in whole.epochs]


@pytest.mark.slow
def test_the_epoch_with_the_lowest_loss_is_kept_with_its_weights(tiny_config: Config, tiny_body: Path) -> None:
    fields: dict[str, Any] = {
        "teacher": str(tiny_body),
        "teacher_epochs": 4,
        "teacher_learning_rate": 3e-3,
        "train_limit": 8,
    }
    for keep in ("lowest_loss", "last"):
        materials, config = Materials(), tiny_config(**fields, teacher_keep=keep, teacher_batch_size=8)
        teacher, validation = materials.teacher(config), materials.teacher_rows(config)[1]
        losses = [epoch.val_loss for epoch in teacher.epochs]
        best = int(np.argmin(losses)) + 1
        assert best < 4, "eight rows are soon memorised; else this test shows nothing"
        assert teacher.kept_epochs == ((best,) if keep == "lowest_loss" else ())
        steps = best if keep == "lowest_loss" else 4  # one an epoch, with rates of 1, 3/4, 1/2 and 1/4 of the peak
        decayed = np.prod([1 - 3e-3 * 0.01 * rate for rate in (1, 0.75, 0.5, 0.25)[:steps]])
        mask = [model.bert.embeddings.word_embeddings.weight[4] for model in (teacher.model, teacher.pretrained)]
        assert torch.allclose(
            mask[0], mask[1] * decayed, rtol=1e-6, atol=0
        )  # [MASK] is in no row: decay alone moves it
        expected = losses[steps - 1]
        assert quality(validation.teacher_logits, validation.labels).loss == pytest.approx(expected, rel=1e-5)


class Fold:
    """Stands for a fold's fine-tuning: two of them must be at work at once, and none is done twice."""

    def __init__(self, lock: Path, side_by_side: threading.Barrier) -> None:
        self._lock, self._side_by_side, self.doers = lock, side_by_side, list[int]()

    @contextmanager
    def lock(self) -> Iterator[Lock]:
        lock = Lock(self._lock)
        yield lock
        lock.give_back()

    def rows(self) -> int:
        return 0

    def result(self, watch: TeacherWatch) -> FineTuned:
        known = bool(self.doers)
        if not known:
            self.doers.append(threading.get_ident())
            self._side_by_side.wait()  # goes on once another fold is at this place too
        return FineTuned(torch.nn.Identity(), Made("weights"), from_cache=known)


def test_two_workers_fine_tune_different_folds_at_the_same_time_and_none_twice(tmp_path: Path) -> None:
    side_by_side = threading.Barrier(2, timeout=60)
    each: Any = {fold: Fold(tmp_path / f"{fold}.lock", side_by_side) for fold in range(4)}
    made: list[dict[int, Any]] = []

    def work() -> None:
        found = folds.fine_tune_folds(each, UNWATCHED, wait=False)
        made.append(found | folds.fine_tune_folds(each, UNWATCHED, wait=True))

    helper = threading.Thread(target=work)
    helper.start()
    work()
    helper.join()
    doers = [fold.doers for fold in each.values()]
    assert all(len(each) == 1 for each in doers) and [sum(doers, []).count(one) for one in set(sum(doers, []))] == [
        2,
        2,
    ]
    assert [sorted(found) for found in made] == [[0, 1, 2, 3], [0, 1, 2, 3]]


@pytest.mark.slow
def test_a_fold_that_another_process_holds_is_left_to_the_end_and_taken_over_where_that_dies(
    folded: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fine_tuning, "distill", Planted())
    config, materials, teachers = folded(teacher_folds=2), Materials(), list[Teacher]()
    data, tokens = materials.data(config), {name: materials.teacher_tokens(config, name) for name in SPLITS}
    first = folds.tunings(fine_tuning.fine_tuning(config, data, tokens), fold_of_rows(data, config), 2)[0]
    with first.lock() as held:
        held.take()
        materials.help_with_folds(config, UNWATCHED)
        (made,) = (cache_root() / "teachers").iterdir()
        assert made != first.folder()
        thread = threading.Thread(target=lambda: teachers.append(materials.teacher(config)))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive() and not teachers  # it waits
    thread.join()
    assert len(teachers[0].members) == 2 and first.folder().exists()
