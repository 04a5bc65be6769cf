"""What a sweep says while it runs: on a terminal live, in a log file now and then a line."""

import io
from dataclasses import replace
from typing import Any

import pytest
from makers import make_epoch, teacher_of
from rich.console import Console
from searches import AXES, sweep_of

from kdsweep.config.arms import ARMS
from kdsweep.config.axis import Axis
from kdsweep.config.sweep import FinalistsConfig, StudyConfig
from kdsweep.engine import display, pace
from kdsweep.engine.display import SweepDisplay
from kdsweep.engine.events import (
    Epoch,
    Event,
    Phase,
    Plan,
    Prepared,
    RowsDone,
    Step,
    TeacherStep,
    TrialEnded,
    TrialStarted,
    teacher_epoch,
)
from kdsweep.engine.plan import print_plan
from kdsweep.records import teacher_schema as records
from kdsweep.records.layout import TrialId
from kdsweep.records.schema import StepMetrics


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Log:
    """A sweep's display on a file, or on a terminal."""

    def __init__(self, clock: Clock, *, terminal: bool = False, workers: int = 1) -> None:
        self._file, self._clock = io.StringIO(), clock
        console = Console(file=self._file, force_terminal=terminal, width=100)
        self.display = SweepDisplay(console, sweep_of(trials=4), dict.fromkeys(sweep_of().stages, 0), workers)

    def show(self, event: Event, *, after_seconds: float = 0.0) -> None:
        self._clock.now += after_seconds
        self.display.show(event)

    def lines(self) -> list[str]:
        """What was said since the last call."""
        said = self._file.getvalue().splitlines()
        self._file.seek(0)
        self._file.truncate()
        return said

    def train_teacher(self, *, steps: int, seconds_per_step: float, first: int = 0) -> list[str]:
        """Ten steps an event, as a worker tells them; the lines."""
        for step in range(first + 10, steps + 1, 10):
            self.show(TeacherStep(step=step, steps=steps, L_hard=0.5), after_seconds=10 * seconds_per_step)
        return self.lines()

    def train_trial(self, *, steps: int, seconds_per_step: float, first: int = 0) -> list[str]:
        """The same of a trial's first epoch."""
        for step in range(first + 10, steps + 1, 10):
            losses = StepMetrics(step=step, epoch=1, L_soft=1.25, L_hard=0.5, L_total=1.0, learning_rate=1e-3)
            self.show(Step(losses=losses, steps=steps), after_seconds=10 * seconds_per_step)
        return self.lines()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """That of the display and its paces."""
    made = Clock()
    for module in (display, pace):
        monkeypatch.setattr(module, "time", made)
    return made


TRIAL = TrialStarted(id=TrialId("distilled", 3), attempt=1, params={"alpha": 0.5}, evaluations=2, unit="epoch")


def test_a_log_shows_a_long_teachers_steps_and_time_left_now_and_then(clock: Clock) -> None:
    log = Log(clock)
    log.show(Phase("preparing the teacher on 1600 rows"))
    log.lines()
    told = log.train_teacher(steps=1000, seconds_per_step=1)
    assert told[0] == "teacher, step 30/1000   L_hard 0.500   about 16 min 10 s to go"
    assert [line.split()[2] for line in told] == [f"{step}/1000" for step in range(30, 1000, 100)]


def test_no_silence_is_longer_than_five_minutes_and_no_two_lines_are_nearer_than_half_a_minute(clock: Clock) -> None:
    assert len(Log(clock).train_teacher(steps=1000, seconds_per_step=30)) == 98  # each 5 min, once two are seen
    assert len(Log(clock).train_teacher(steps=1000, seconds_per_step=0.1)) == 3  # 100 s
    assert Log(clock).train_teacher(steps=200, seconds_per_step=0.1) == []


def test_a_teacher_that_goes_on_from_a_checkpoint_is_timed_by_the_steps_seen_here(clock: Clock) -> None:
    told = Log(clock).train_teacher(steps=1000, seconds_per_step=2, first=900)
    assert told[0] == "teacher, step 920/1000   L_hard 0.500   about 2 min 40 s to go"


def test_a_log_shows_a_long_trials_steps_epochs_and_time_left(clock: Clock) -> None:
    log = Log(clock)
    log.show(TRIAL)
    told = log.train_trial(steps=100, seconds_per_step=2)
    assert told[1] == (
        "distilled trial 3: alpha 0.5   epoch 1/2   step 20/100   L_soft 1.250   L_hard 0.500   about 2 min 40 s to go, "
        "the whole sweep about 13 min 20 s"
    )
    log.display._expected_seconds = 600.0
    told = log.train_trial(steps=200, seconds_per_step=20, first=100)
    assert told[0].endswith("to go, the whole sweep about 40 min 0 s")
    log.show(Epoch(metrics=make_epoch(0, 0.8125)))
    assert log.lines() == ["distilled trial 3: alpha 0.5   epoch 1/2   val_accuracy 0.8125"]
    log.show(Epoch(metrics=make_epoch(1, 0.9)), after_seconds=200)
    assert log.lines() == []  # the line of a finished trial says it


def test_the_first_steps_of_the_first_trial_give_the_estimate_and_it_is_said_once(clock: Clock) -> None:
    log = Log(clock)
    log.show(TRIAL)
    losses = StepMetrics(step=0, epoch=1, L_soft=1.25, L_hard=0.5, L_total=1.0, learning_rate=1e-3)
    said = []
    for step in (10, 20, 30):  # two seconds a step
        told = Step(losses=replace(losses, step=step), steps=100, evaluation_steps=25.0)
        log.show(told, after_seconds=20)
        said.append([line for line in log.lines() if line.startswith("estimate")])
    assert said == [[], ["estimate: 16 min 40 s for 4 trials of about 250.0 s"], []]


def test_a_terminal_shows_the_same_in_its_live_part_alone(clock: Clock) -> None:
    log = Log(clock, terminal=True)
    log.show(Phase("preparing the teacher"))
    assert log.train_teacher(steps=500, seconds_per_step=5) == []
    log.show(TeacherStep(step=100, steps=500, L_hard=0.25))
    console = Console(file=io.StringIO(), width=100)
    console.print(log.display._view())
    assert "preparing the teacher   step 100/500   L_hard 0.250" in console.file.getvalue()  # type: ignore[attr-defined]


def test_teachers_of_folds_that_are_fine_tuned_side_by_side_are_shown_together(clock: Clock) -> None:
    log = Log(clock, terminal=True)
    log.show(Phase("preparing the teacher"))
    for fold, step in (("fold 1 of 5", 9), ("fold 2 of 5", 3), ("fold 1 of 5", 10), ("fold 3 of 5", 1)):
        log.show(TeacherStep(step=step, steps=10, L_hard=0.25, fold=fold))
    assert log.display._metrics == "fold 2 of 5: step 3/10   L_hard 0.250   fold 3 of 5: step 1/10   L_hard 0.250"


def test_the_plan_says_that_a_loss_without_a_temperature_wants_a_condition() -> None:
    soft, said = {"soft_loss": Axis(choices=("kl", "mse"))}, []
    for when in ({}, {"soft_loss": ("kl",)}):
        file = io.StringIO()
        search = {**soft, "temperature": Axis(low=1.0, high=8.0, when=when)}
        print_plan(Console(file=file, width=200), sweep_of(search), {})
        said.append(file.getvalue())
    assert "(distilled only)   mse has no temperature: search.temperature.when.soft_loss=[kl] searches" in said[0]
    assert "mse has no temperature" not in said[1] and "[1, 8] when soft_loss is kl   (distilled only)" in said[1]


def test_a_trial_of_max_steps_counts_evaluations_and_longer_finalists_count_more(clock: Clock) -> None:
    log = Log(clock)
    log.show(replace(TRIAL, evaluations=4, unit="evaluation"))
    told = log.train_trial(steps=100, seconds_per_step=2)
    assert told[1].startswith("distilled trial 3: alpha 0.5   step 20/100   L_soft 1.250")
    log.show(Epoch(metrics=make_epoch(1, 0.8125)), after_seconds=200)
    assert log.lines() == ["distilled trial 3: alpha 0.5   evaluation 2/4   val_accuracy 0.8125"]
    sweep = replace(sweep_of(), finalists=FinalistsConfig(top=1, seeds=2, epochs_factor=3))
    shown = display.SweepDisplay(Console(file=io.StringIO()), sweep, dict.fromkeys(sweep.stages, 0))
    assert shown._open() == 5 + 2 and shown._open_lengths() == 5 + 3 * 2


@pytest.mark.parametrize(
    ("trials", "controls", "said"),
    [
        (4, 4, "18 runs: the best 3 of each arm"),
        (4, 1, "12 runs: the best 3 distilled and 1 fine-tuned"),
        (1, 1, "6 runs: the best 1 of each arm"),
        (1, 0, "3 runs: the best 1 distilled"),
    ],
)
def test_the_plan_names_as_many_finalists_as_there_can_be(trials: int, controls: int, said: str) -> None:
    file = io.StringIO()
    study = StudyConfig(trials=trials, controls=controls)
    sweep = replace(sweep_of(trials=4), study=study, finalists=FinalistsConfig(top=3, seeds=3))
    print_plan(Console(file=file, width=150), sweep, {})
    assert f"{said} on fresh seeds" in file.getvalue()


def test_the_plan_names_three_arms_and_who_searches_what() -> None:
    file, search = io.StringIO(), {**AXES, "unlabeled_share": Axis(low=0.1, high=0.9)}
    search["weight_decay"] = Axis(choices=(0.0, 0.1), arms=("fine_tuned",))
    sweep = sweep_of(search, trials=4, controls=2)
    three = replace(
        sweep,
        fixed={**sweep.fixed, "unlabeled_rest": True, "student_body": None},
        finalists=FinalistsConfig(top=3, seeds=2),
    )
    print_plan(Console(file=file, width=150), three, {})
    said = " ".join(file.getvalue().split())
    for words in (
        "search alpha [0, 1] (distilled only)",
        "search unlabeled_share [0.1, 0.9] (distilled and pseudo-labeled only)",
        "search weight_decay {0.0, 0.1} (fine-tuned only)",
        "4 distilled + 2 fine-tuned + 4 pseudo-labeled for val_accuracy",
        "16 runs: the best 3 distilled, 2 fine-tuned and 3 pseudo-labeled on fresh seeds",
    ):
        assert words in said
    assert "fixed unlabeled_rest True" in said and "student_body" not in said


def test_lines_and_bars_of_three_arms_stand_in_one_column() -> None:
    file, sweep = io.StringIO(), sweep_of(trials=2, controls=1)
    three = replace(sweep, fixed={**sweep.fixed, "unlabeled_rest": True})
    shown = display.SweepDisplay(Console(file=file, width=150), three, dict.fromkeys(three.stages, 0))
    for arm in ARMS:
        shown.show(replace(TRIAL, id=TrialId(arm, 1)))
        ended = TrialEnded(id=TrialId(arm, 1), status="complete", error=None, score=0.5, violates=(), seconds=1.0)
        shown.show(ended)
    assert [line.split("1  val")[0] for line in file.getvalue().splitlines()] == [
        f"{name:>14}    " for name in ("distilled", "fine-tuned", "pseudo-labeled")
    ]


def test_the_plan_says_how_long_trials_and_finalists_train() -> None:
    file, sweep = io.StringIO(), replace(sweep_of(), finalists=FinalistsConfig(top=1, seeds=2, epochs_factor=3))
    steps = replace(sweep, fixed={**sweep.fixed, "max_steps": 3750}, finalists=FinalistsConfig(top=1, seeds=2))
    for each in (sweep, steps):
        print_plan(Console(file=file, width=150), each, {})
    said = " ".join(file.getvalue().split())
    assert "length 3 epochs each" in said and "on fresh seeds (1, 2), 3 times as long" in said
    assert "length 3,750 steps, evaluated 4 times each" in said and "on fresh seeds (1, 2) verdict" in said


def test_a_log_shows_how_far_texts_without_labels_are(clock: Clock) -> None:
    log = Log(clock)
    for what in ("tokens", "the teacher's logits"):
        for done in range(20_000, 1_000_001, 20_000):
            log.show(RowsDone(what=what, done=done, rows=1_000_000, unit="texts"), after_seconds=10)
    told = log.lines()
    assert told[0] == "tokens of 80,000/1,000,000 texts   2,000 a second   about 7 min 40 s to go"
    assert sum(line.startswith("the teacher's logits of") for line in told) == len(told) / 2 > 4


def test_the_plan_says_where_the_teacher_runs_in_every_step() -> None:
    log = Log(Clock())
    facts: dict[str, Any] = {"max_length": "16 cuts none", "device": "cpu", "precision": "fp32", "threads": 1}
    facts |= {"tracking": "off", "tracking_why": "as the sweep file says"}
    for runs in (False, True):
        log.show(Prepared(teacher=teacher_of(), plan=Plan(**facts, teacher_runs=runs)))
        said = " ".join(" ".join(log.lines()).split())
        assert ("it runs in every step (relation_weight)" in said) == runs


def test_a_log_shows_how_many_rows_are_read_though_nobody_knows_how_many_there_are(clock: Clock) -> None:
    log = Log(clock)
    for _ in range(2):  # two files: each is counted by itself
        for done in range(10_000, 200_001, 10_000):
            log.show(RowsDone(what="read", done=done, rows=None, unit="rows"), after_seconds=10)
    told = log.lines()
    assert told[0] == "read 40,000 rows   1,000 a second"
    assert len(told) == 2


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, "ready: val_accuracy 0.8800 (majority class 0.5000)"),
        (
            {"task": "multi_label", "val_example_f1": 0.7, "majority_scores": {"val_example_f1": 0.25}},
            "ready: val_example_f1 0.7000 (the same labels for all 0.2500)",
        ),
        (
            {"task": "regression", "val_pearson": 0.85, "majority_scores": {"val_pearson": 0.0}},
            "ready: val_pearson 0.8500 (the mean for all 0.0000)",
        ),
        (
            {"task": "regression", "taught_rows": {"train": 9}, "numbers": {"labeled_rows": 8, "loss": 0.25}},
            "mean squared error 0.2500 on 8 labelled rows",
        ),
        (
            {"task": "multi_label", "numbers": {"labeled_rows": 8, "loss": 0.25, "accuracy": 0.5, "ece": 0.1}}
            | {"taught_rows": {"train": 9}},
            "subset accuracy 0.5000, calibration error 0.100 on 8 labelled rows",
        ),
    ],
)
def test_the_teacher_is_shown_by_the_first_metric_of_its_task(clock: Clock, facts: dict[str, Any], said: str) -> None:
    none = {"val_accuracy": None, "majority_accuracy": None} if facts.get("task") == "regression" else {}
    log = Log(clock)
    shown: dict[str, Any] = {"max_length": "64 cuts no row", "device": "cpu", "precision": "fp32", "threads": 2}
    shown |= {"tracking": "offline", "tracking_why": "no key"}
    log.show(Prepared(teacher=teacher_of(**{**none, **facts}), plan=Plan(**shown)))
    assert said in " ".join(" ".join(log.lines()).split())


def test_an_epoch_of_the_teacher_is_shown_by_the_first_metric_of_its_task(clock: Clock) -> None:
    log, facts = Log(clock), {"epoch": 2, "step": 9, "L_hard": 0.5, "val_loss": 0.4, "train_seconds": 1.0}
    log.show(teacher_epoch(records.TeacherEpoch(**facts, val_accuracy=0.75)))
    log.show(teacher_epoch(records.TeacherEpoch(**facts, val_accuracy=0.3, val_example_f1=0.5), "fold 1 of 2"))
    log.show(teacher_epoch(records.TeacherEpoch(**facts, val_accuracy=None, val_pearson=0.8)))
    assert log.lines() == [
        "teacher, epoch 2: val_accuracy 0.7500",
        "teacher of fold 1 of 2, epoch 2: val_example_f1 0.5000",
        "teacher, epoch 2: val_pearson 0.8000",
    ]


def test_a_trial_of_few_steps_gives_the_estimate_with_its_first_evaluation(clock: Clock) -> None:
    log = Log(clock)
    log.show(TRIAL)
    log.show(Epoch(metrics=make_epoch(0, 0.75)), after_seconds=3)
    log.show(Epoch(metrics=make_epoch(1, 0.8)), after_seconds=3)
    assert [line for line in log.lines() if line.startswith("estimate")] == [
        "estimate: 24.0 s for 4 trials of about 6.0 s"
    ]


def test_the_estimate_counts_the_workers_whose_first_trial_begins_in_a_moment(clock: Clock) -> None:
    said = []
    for workers in (1, 2, 9):  # with nine, for four trials
        log = Log(clock, workers=workers)
        log.show(TRIAL)
        log.show(Epoch(metrics=make_epoch(0, 0.75)), after_seconds=3)
        said += [line.partition(" for ")[0] for line in log.lines() if line.startswith("estimate")]
    assert said == ["estimate: 24.0 s", "estimate: 12.0 s", "estimate: 6.0 s"]
