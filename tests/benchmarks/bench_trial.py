"""One kdsweep trial against the textbook's distillation loop: same rows, student, hyperparameters, epochs and seed, one process.

`textbook` below is the loop as a notebook has it, `ours` is `run_trial`, the path that every trial of a sweep takes. They take
turns, so that a machine that slows down slows both; medians are compared. What a sweep pays once (reading, tokenising, the
teacher's logits) is printed apart and counted on neither side.
"""

import argparse
import contextlib
import dataclasses
import itertools
import math
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from transformers import get_linear_schedule_with_warmup

from kdsweep.config.sweep import SweepConfig, TrackingConfig
from kdsweep.config.sweep_file import load_sweep
from kdsweep.config.trial import TrialConfig
from kdsweep.records.layout import TrialId
from kdsweep.records.writing import TrialFolder
from kdsweep.tracking.names import RunLabel
from kdsweep.tracking.open import open_tracker
from kdsweep.training.data.tokens import Rows, Tokens
from kdsweep.training.evaluation import all_logits
from kdsweep.training.fast import machine
from kdsweep.training.loop import distill
from kdsweep.training.models import weights_sha256
from kdsweep.training.objective import objective_of
from kdsweep.training.reader import reader
from kdsweep.training.resolve import resolve
from kdsweep.training.shared import Materials
from kdsweep.training.trial import Slot, Watch, run_trial

SWEEP = Path(__file__).parents[2] / "sweeps" / "T_alpha.yaml"
NO_CLIPPING = 1e6
EVALUATION_ROWS = 64
"""Of a batch in the textbook's evaluation."""

QUIET = Watch(on_steps=lambda _: None, on_epoch=lambda _: False)


class Side(NamedTuple):
    """One run: seconds of training and evaluation, and the accuracy after the last epoch."""

    train_seconds: float
    evaluate_seconds: float
    val_accuracy: float

    @property
    def seconds(self) -> float:
        """Training and evaluation."""
        return self.train_seconds + self.evaluate_seconds


# The textbook --------------------------------------------------------------------------------------------------------


def textbook(
    student: Any,
    teacher: Any,
    train: list[tuple[Tensor, int]],
    validation: list[tuple[Tensor, int]],
    config: TrialConfig,
) -> Side:
    """Distillation as a notebook has it: float32, the teacher run on every batch, each batch padded to its longest row."""
    order = torch.Generator().manual_seed(config.seed)
    batches = loader(train, config.batch_size, shuffle=True, generator=order)
    held_out = loader(validation, EVALUATION_ROWS)
    optimizer = torch.optim.AdamW(student.parameters(), lr=config.learning_rate)
    steps = config.epochs * len(batches)
    schedule = get_linear_schedule_with_warmup(optimizer, round(config.warmup_ratio * steps), steps)
    T, alpha, device = config.temperature, config.alpha, next(student.parameters()).device
    torch.manual_seed(config.seed)
    train_seconds = evaluate_seconds = accuracy = 0.0
    for _ in range(config.epochs):
        started = time.perf_counter()
        student.train()
        for batch in batches:
            input_ids, attention_mask, labels = (tensor.to(device) for tensor in batch)
            with torch.no_grad():
                teacher_logits = teacher(input_ids=input_ids, attention_mask=attention_mask).logits
            student_logits = student(input_ids=input_ids, attention_mask=attention_mask).logits
            log_q, p = (
                functional.log_softmax(student_logits / T, dim=-1),
                functional.softmax(teacher_logits / T, dim=-1),
            )
            soft = functional.kl_div(log_q, p, reduction="batchmean") * T**2
            hard = functional.cross_entropy(student_logits, labels)
            loss = alpha * soft + (1 - alpha) * hard
            optimizer.zero_grad()
            loss.backward()
            if config.max_grad_norm < NO_CLIPPING:
                nn.utils.clip_grad_norm_(student.parameters(), config.max_grad_norm)
            optimizer.step()
            schedule.step()
        trained = time.perf_counter()
        accuracy = textbook_accuracy(student, held_out)
        train_seconds += trained - started
        evaluate_seconds += time.perf_counter() - trained
    return Side(train_seconds, evaluate_seconds, accuracy)


def loader(rows: Any, batch_size: int, **order: Any) -> DataLoader[Any]:
    """Batches of B rows; a list serves as a dataset."""
    return DataLoader(rows, batch_size, collate_fn=collate, **order)


def textbook_accuracy(student: Any, batches: DataLoader[Any]) -> float:
    """Share of rows whose class is right, batch by batch in file order."""
    student.eval()
    right, rows, device = 0, 0, next(student.parameters()).device
    with torch.no_grad():
        for batch in batches:
            input_ids, attention_mask, labels = (tensor.to(device) for tensor in batch)
            predicted = student(input_ids=input_ids, attention_mask=attention_mask).logits.argmax(dim=-1)
            right += int((predicted == labels).sum())
            rows += len(labels)
    return right / rows


def collate(rows: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids and mask padded to the longest row (BERT's padding is 0), and the labels."""
    ids = pad_sequence([ids for ids, _ in rows], batch_first=True)
    mask = pad_sequence([torch.ones_like(ids) for ids, _ in rows], batch_first=True)
    return ids, mask, torch.tensor([label for _, label in rows])


def as_list(rows: Rows) -> list[tuple[Tensor, int]]:
    """One tensor of ids and one label a row, as a notebook keeps a tokenised dataset."""
    texts = torch.split(rows.tokens.ids.long(), rows.tokens.lengths.tolist())
    return list(zip(texts, rows.labels.tolist(), strict=True))


# Ours ----------------------------------------------------------------------------------------------------------------


class Trial(NamedTuple):
    """One run of ours, and the seconds that it spent on neither training nor evaluation."""

    side: Side
    overhead_seconds: float
    """Inside `run_trial`: the student built, measured, saved, every record."""
    tracking_seconds: float
    """Opening and closing the W&B run."""


def ours(materials: Materials, config: TrialConfig, folder: Path, number: int) -> Trial:
    """A whole trial: every step recorded, offline W&B, the student saved."""
    tracker = open_tracker(folder, "bench", TrackingConfig(), "offline")
    trial_folder = TrialFolder(folder / "trials" / f"{number:04d}")
    started = time.perf_counter()
    name = f"bench-{number:04d}"
    label = RunLabel(run_id=name, name=name, job_type="trial", facts={})
    with tracker.run(label, dataclasses.asdict(config)) as run:
        result = run_trial(config, Slot(id=TrialId("distilled", number)), trial_folder, materials, run, QUIET)
    seconds = time.perf_counter() - started
    assert result.status == "complete" and result.val_accuracy is not None, result.error
    side = Side(result.train_seconds, result.evaluate_seconds, result.val_accuracy)
    return Trial(side, result.seconds - side.seconds, seconds - result.seconds)


def shares(materials: Materials, config: TrialConfig) -> dict[str, float]:
    """Where the training seconds of one more trial go, as shares: its calls to forward and loss, backward, clip and step."""
    seconds = dict.fromkeys(("forward", "backward", "step"), 0.0)

    def timed(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                if student.training:  # not the evaluation
                    seconds[part] += time.perf_counter() - started

        return wrapper

    student: Any = materials.student(config)
    student.forward = timed("forward", student.forward)
    with contextlib.ExitStack() as stack:
        for part, owner, name in (
            ("backward", Tensor, "backward"),
            ("step", nn.utils, "clip_grad_norm_"),
            ("step", torch.optim.AdamW, "step"),
        ):
            stack.enter_context(swapped(owner, name, timed(part, getattr(owner, name))))
        plain = objective_of(config)
        objective = dataclasses.replace(plain, loss=timed("forward", plain.loss))
        training, _ = distill(
            student,
            *materials.rows(config),
            config,
            on_steps=QUIET.on_steps,
            on_epoch=QUIET.on_epoch,
            objective=objective,
        )
    total = sum(epoch.train_seconds for epoch in training.history)
    return {**{part: spent / total for part, spent in seconds.items()}, "other": 1 - sum(seconds.values()) / total}


@contextlib.contextmanager
def swapped(owner: Any, name: str, new: object) -> Iterator[None]:
    """`owner.name` is `new` inside the block."""
    old = getattr(owner, name)
    setattr(owner, name, new)
    try:
        yield
    finally:
        setattr(owner, name, old)


# Both sides ----------------------------------------------------------------------------------------------------------


def compare(sweep: SweepConfig, batch_sizes: Sequence[int], repeats: int, folder: Path) -> None:
    """Print what is paid once, then both sides at every batch size."""
    materials, numbers = Materials(), itertools.count()
    config = resolve(sweep.fields("distilled", {}), threads=os.cpu_count() or 1)
    machine.set_up(int(config.threads))
    prepare(materials, config)
    for batch_size in batch_sizes:
        print(f"\nbatch {batch_size}", flush=True)
        textbooks, trials = [], []
        for repeat in range(repeats):
            seeded = dataclasses.replace(config, batch_size=batch_size, seed=repeat)
            train, validation = materials.rows(seeded)
            trials.append(ours(materials, seeded, folder, next(numbers)))
            if repeat == 0:
                print(f"  peak RSS so far, a trial of ours the last: {peak_rss_mb():,.0f} MB")
            student, teacher = materials.student(seeded), materials.teacher(seeded).model
            assert weights_sha256(student) == materials.initial_weights_sha256(
                seeded
            )  # both start from the same weights
            textbooks.append(textbook(student, teacher, as_list(train), as_list(validation), seeded))
            print(
                f"  seed {repeat}: textbook {textbooks[-1].seconds:.1f} s, ours {trials[-1].side.seconds:.1f} s",
                flush=True,
            )
        print_comparison(textbooks, trials, rows=len(train.labels) * config.epochs, held_out=len(validation.labels))
        parts = shares(materials, dataclasses.replace(config, batch_size=batch_size))
        print(f"  our training seconds: {', '.join(f'{part} {share:.1%}' for part, share in parts.items())}")
    print(f"\npeak RSS of the whole process, textbook included: {peak_rss_mb():,.0f} MB")


def prepare(materials: Materials, config: TrialConfig) -> None:
    """Make the materials, and print what each costs a sweep once."""
    with clock("reading the rows"):
        data = materials.data(config)
    with clock("the teacher, fine-tuned or from the cache"):
        teacher = materials.teacher(config)
    if teacher.fine_tuned_seconds:
        print(
            f"  its fine-tuning took {teacher.fine_tuned_seconds:.1f} s, accuracy {teacher.epochs[-1].val_accuracy:.1%}"
        )
    with clock("tokenising"):
        read = reader(config.teacher, config.teacher_revision)
        splits = {"train": data.train, "validation": data.validation}
        tokens = {name: read.tokens(split, max_length=config.max_length) for name, split in splits.items()}
    with clock("the teacher's logits of every row"):
        for split in tokens.values():
            all_logits(teacher.model, split.to(config.device), classes=len(data.label_names))
    print(
        f"{len(data.train):,} + {len(data.validation):,} rows of {len(data.label_names)} classes, mean "
        f"{mean_length(tokens['train']):.1f} tokens; {config.precision}, {config.threads} threads, "
        f"{machine.processor()}, torch {torch.__version__}"
    )


def print_comparison(textbooks: list[Side], trials: list[Trial], *, rows: int, held_out: int) -> None:
    """A line a side, then what they say of each other."""
    slow, fast = (summary(sides, rows) for sides in (textbooks, [trial.side for trial in trials]))
    for name, side in (("textbook", slow), ("ours", fast)):
        print(
            f"  {name:<9}{side.seconds:7.2f} s (training {side.train_seconds:.2f}), "
            f"{1000 * side.train_seconds / rows:6.2f} ms/row, {rows / side.train_seconds:6.0f} rows/s trained, "
            f"val_accuracy {side.val_accuracy:.1%}"
        )
    error = math.sqrt(slow.val_accuracy * (1 - slow.val_accuracy) / held_out)
    apart = fast.val_accuracy - slow.val_accuracy
    overhead, tracking = (
        statistics.median(values)
        for values in zip(*((trial.overhead_seconds, trial.tracking_seconds) for trial in trials), strict=True)
    )
    print(
        f"  ratio {slow.seconds / fast.seconds:.1f} (training alone {slow.train_seconds / fast.train_seconds:.1f}); accuracy "
        f"{100 * apart:+.1f} points, {'within' if abs(apart) <= error else 'NOT within'} one standard error "
        f"({100 * error:.1f})\n  beyond training and evaluation: {overhead:.2f} s, W&B {tracking:.2f} s"
    )


def summary(sides: list[Side], rows: int) -> Side:
    """Median seconds, and the mean accuracy over seeds."""
    return Side(
        statistics.median(side.train_seconds for side in sides),
        statistics.median(side.evaluate_seconds for side in sides),
        statistics.fmean(side.val_accuracy for side in sides),
    )


@contextlib.contextmanager
def clock(what: str) -> Iterator[None]:
    """Print how long the block took."""
    started = time.perf_counter()
    yield
    print(f"once a sweep: {what}: {time.perf_counter() - started:.1f} s", flush=True)


def mean_length(tokens: Tokens) -> float:
    """Tokens a row."""
    return float(tokens.lengths.mean())


def peak_rss_mb() -> float:
    """The most memory that this process has had, in MB (10⁶ bytes; Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


# The command line ----------------------------------------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    """The options."""
    described = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python tests/benchmarks/bench_trial.py --data train.jsonl.gz validation.jsonl.gz --rows 4000 --batch 64",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = described.add_argument
    add("--data", nargs="+", default=["reviews"], metavar="PATH", help="reviews (default), or two files: train and validation")  # fmt: skip
    add("--rows", type=int, default=2000, help="training rows, drawn at random, stratified by class (default 2000)")
    add("--batch", type=int, action="append", help="rows a step; may be given again (default 64 and 16)")
    add("--epochs", type=int, default=1, help="passes over the rows (default 1)")
    add("--repeats", type=int, default=3, help="runs of each side at each batch size, seeds 0, 1, … (default 3)")
    add("--layers", type=int, default=3, help="of the student, spread over the teacher's 6 (default 3)")
    add("--learning-rate", type=float, default=3e-4, help="of both sides (default 3e-4)")
    add("--teacher-epochs", type=int, default=1, help="0: a random head, which means nothing but works as much (default 1)")  # fmt: skip
    return described


def sweep_for(options: argparse.Namespace) -> SweepConfig:
    """The shipped sweep with this benchmark's rows, models and epochs."""
    sweep = load_sweep(SWEEP)
    fixed = {
        **sweep.fixed,
        "train_limit": options.rows,
        "epochs": options.epochs,
        "student_layers": options.layers,
        "teacher_epochs": options.teacher_epochs,
        "student_init": "pretrained" if options.teacher_epochs else "finetuned",
        "temperature": 4.0,
        "alpha": 0.5,
        "learning_rate": options.learning_rate,
        "max_grad_norm": NO_CLIPPING,  # most notebooks do not clip, which changes what is learnt
    }
    if options.data != ["reviews"]:
        train, validation = options.data
        columns = {"text_column": "text", "label_column": "label", "label_names": (), "validation_limit": None}
        fixed |= {"train_file": train, "validation_file": validation, **columns}
    return dataclasses.replace(sweep, fixed=fixed, search={}, enqueue=())


def main() -> None:
    """Compare."""
    described = parser()
    options = described.parse_args()
    if options.data != ["reviews"] and len(options.data) != 2:
        described.error("--data reads reviews, or TRAIN VALIDATION")
    sweep = sweep_for(options)
    with tempfile.TemporaryDirectory() as folder:
        compare(sweep, options.batch or [64, 16], options.repeats, Path(folder))


if __name__ == "__main__":
    main()
