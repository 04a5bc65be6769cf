"""A sweep file: what is fixed, what is searched, how long, and where it is tracked."""

import dataclasses
import itertools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from kdsweep.config.roles import NOT_NEGATIVE, POSITIVE, Range, Trait, having
from kdsweep.config.trial import RECIPE_VERSION, TrialConfig
from kdsweep.config.yaml import plain_values, to_yaml
from kdsweep.errors import ConfigError

Arm = Literal["distilled", "fine_tuned"]
ARMS: tuple[Arm, ...] = ("distilled", "fine_tuned")
Stage = Arm | Literal["finalists"]
STAGES: tuple[Stage, ...] = (*ARMS, "finalists")
"""The searches of both arms, then the best of both once more on fresh seeds."""
Resolved = Literal["online", "offline", "off"]
"""How W&B is reached, once `auto` is resolved."""
FINE_TUNED: dict[str, float] = {"alpha": 0.0, "temperature": 1.0}
"""What the fine-tuned arm fixes: no weight on the teacher, whose temperature is then only a unit of L_soft."""

AT_LEAST_ONE = Range(least=1)
TRIAL_DEFAULTS = {item.name: item.default for item in dataclasses.fields(TrialConfig)}
ARM_NAMES: dict[Arm, str] = {"distilled": "distilled", "fine_tuned": "fine-tuned"}


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One searched field: an interval (`low`, `high`, optionally `log` or `step`) or a list of `choices`."""

    low: float | None = None
    """Lower end of the interval, in it."""
    high: float | None = None
    """Upper end of the interval, in it."""
    log: bool = False
    """Whether the interval is searched on a logarithmic scale."""
    step: float | None = None
    """Distance of neighbouring values, counted from low; null: any value."""
    choices: tuple[Any, ...] = ()
    """The values themselves, in place of an interval."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", tuple(tuple(c) if isinstance(c, list) else c for c in self.choices))
        if self.choices:
            if self.low is not None or self.high is not None or self.log or self.step is not None:
                raise ConfigError(
                    "either low and high or choices, not both (on the command line, null drops a key: choices=null, or low=null high=null log=null)"
                )
            if len(set(self.choices)) < len(self.choices):
                raise ConfigError(f"choices are distinct, but got {list(self.choices)}")
            return
        if self.low is None or self.high is None:
            raise ConfigError("an axis has low and high, or choices")
        rules = [
            (
                all(math.isfinite(end) for end in (self.low, self.high)),
                "finite low and high",
                f"{self.low} and {self.high}",
            ),
            (self.low < self.high, "low < high", f"low {self.low}, high {self.high}"),
            (not self.log or self.low > 0, "a log axis starts above 0", f"low {self.low}"),
            (self.step is None or self.step > 0, "step > 0", f"step {self.step}"),
            (not (self.log and self.step), "log or step, not both", f"log: true, step: {self.step}"),
        ]
        broken = [f"{rule} must hold, but got {given}" for holds, rule, given in rules if not holds]
        if broken:
            raise ConfigError(broken)

    def ends(self) -> tuple[Any, ...]:
        """Values whose validity decides the axis's."""
        return self.choices or (self.low, self.high)

    def points(self) -> tuple[Any, ...] | None:
        """All values of a finite axis; None for a continuous one."""
        if self.choices or self.step is None:
            return self.choices or None
        assert self.low is not None and self.high is not None
        count = int((self.high - self.low) / self.step + 1e-9) + 1
        return tuple(self.low + index * self.step for index in range(count))

    def holds(self, value: Any) -> bool:
        """Whether `value` lies on the axis."""
        if self.choices:
            return value in self.choices
        assert self.low is not None and self.high is not None
        if not (isinstance(value, int | float) and self.low <= value <= self.high):
            return False
        return self.step is None or any(math.isclose(value, point, abs_tol=1e-9) for point in self.points() or ())

    def text(self) -> str:
        """The axis in a few characters, for a table."""
        if self.choices:
            return "{" + ", ".join(str(list(c) if isinstance(c, tuple) else c) for c in self.choices) + "}"
        assert self.low is not None and self.high is not None
        kind = " log" if self.log else f" step {_short(self.step)}" if self.step else ""
        return f"[{_short(self.low)}, {_short(self.high)}]{kind}"


def _short(value: float) -> str:
    """All digits of a number that has many, and none that it has not: identities are compared by this text."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """What a student must keep to be ranked; a trial that does not is run (or pruned) all the same, so that the search learns."""

    latency_ms_p50: Annotated[float | None, POSITIVE] = None
    """Median milliseconds of one row, batch 1, measured once for each size of student; null: no limit."""
    size_mb: Annotated[float | None, POSITIVE] = None
    """Megabytes of its weights; null: no limit."""

    def limits(self) -> dict[str, float]:
        """Those that are set, by name."""
        return {name: limit for name, limit in dataclasses.asdict(self).items() if limit is not None}


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """The search: how many trials, and which of Optuna's samplers and pruners."""

    trials: Annotated[int, AT_LEAST_ONE, Trait.FREE] = 20
    """Trials of the distilled arm, in total over all runs of the sweep."""
    controls: Annotated[int | None, NOT_NEGATIVE, Trait.FREE] = None
    """Trials of the fine-tuned arm; null: as many as `trials`."""
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """tpe: Optuna's, which learns from the trials before; random; grid: every point of axes that have choices or a step."""
    metric: Literal["val_accuracy", "val_macro_f1", "val_mcc"] = "val_accuracy"
    """What the search maximises and the leaderboard ranks by; the last two for classes of very different size."""
    constraints: Annotated[Constraints, Trait.FREE] = field(default_factory=Constraints)
    """Limits on latency and size; students that break one are not ranked."""
    pruner: Literal["median", "hyperband", "none"] = "median"
    """Which trials are stopped after an epoch. median: those below the others' median at the same epoch."""
    startup_trials: Annotated[int, AT_LEAST_ONE] = 5
    """Random trials before TPE models anything, and before the median pruner cuts."""
    lag: Annotated[int | None, NOT_NEGATIVE] = 2
    """Trial n is proposed and pruned by what the trials before n - lag gave, and waits for those: so up to lag + 1 trials of an arm
    run side by side, and the search does not hang on who is faster. null: by whatever has ended, in whatever order."""
    accept_weak_teacher: Annotated[bool, Trait.FREE] = False
    """Whether the search goes on with a teacher that is hardly better than always naming the commonest class."""
    seed: Annotated[int, NOT_NEGATIVE] = 0
    """Seed of the sampler; trial n proposes the same in every resume."""
    storage: Annotated[str | None, Trait.FREE] = None
    """`postgresql+psycopg://host/database` that several hosts share; null: an SQLite file in the results folder."""
    keep_students: Annotated[int, AT_LEAST_ONE, Trait.FREE] = 3
    """Students kept on disk, best of each arm, and of its finalists the best run of each configuration first; records are kept of all."""
    target: Annotated[float | None, Range(above=0, most=1), Trait.FREE] = None
    """Stop the search when a trial has this `metric`, in (0, 1]; trials that run are checkpointed. null: run all."""
    timeout_minutes: Annotated[float | None, POSITIVE, Trait.FREE] = None
    """Stop when the sweep has been worked on for so long, over all its runs and hosts; running trials are checkpointed, and
    go on once this is raised. null: no limit."""
    max_attempts: Annotated[int, AT_LEAST_ONE, Trait.FREE] = 3
    """A trial fails when its worker died so many times with it (killed for memory, say)."""
    checkpoint_seconds: Annotated[float, POSITIVE, Trait.FREE] = 60.0
    """A running trial is checkpointed so often, so no more work than that is ever lost."""
    heartbeat_seconds: Annotated[int, AT_LEAST_ONE, Trait.FREE] = 60
    """With `storage`: how often a host says that its trials are alive; after twice as long others take them over."""


@dataclass(frozen=True, kw_only=True)
class FinalistsConfig:
    """After the search, the best configurations run once more on fresh seeds, and on them alone the test split is opened.

    In a sweep file, what is not named is less than its default where the finalists would else take more runs than the search;
    `finalists: null` switches them off.
    """

    top: Annotated[int, NOT_NEGATIVE] = 3
    """Best configurations of each arm, by validation; 0: no finalists, and verdicts stay provisional."""
    seeds: Annotated[int, AT_LEAST_ONE] = 3
    """Fresh seeds for each of them, none of which the search has used; 1 gives no verdict: it cannot tell luck from recipe."""


LONGEST_TAG = 64
"""W&B refuses a longer one."""


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Where the runs are shown."""

    project: str = "kdsweep"
    """W&B's project."""
    entity: str | None = None
    """W&B's team or user that owns the project; null: the user's own default."""
    mode: Literal["auto", "online", "offline", "off"] = "auto"
    """auto: online with a key and a server that answers, else offline; off: no W&B at all."""
    tags: tuple[str, ...] = ()
    """Tags of every run, beside those that the sweep gives it."""
    log_model: bool = False
    """Whether the best student goes to W&B as an artifact, weights and config, when the finalists are done."""
    log_texts: bool = False
    """Whether the texts on which teacher and finalists disagree go to W&B as a table, when the finalists are done."""


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """A whole sweep, checked: every end of every axis makes a valid `TrialConfig`."""

    name: str
    """Names the folder in results/ and the runs in W&B: letters, digits, '.', '_' and '-'."""
    fixed: Mapping[str, Any]
    """Fields of a trial that are the same in every trial; those neither fixed nor searched have their defaults."""
    search: Mapping[str, Axis]
    """Fields of a trial that are searched, each with its axis."""
    study: StudyConfig = field(default_factory=StudyConfig)
    enqueue: tuple[Mapping[str, Any], ...] = ()
    """Points that the distilled arm tries first; what one does not name is sampled."""
    finalists: FinalistsConfig = field(default_factory=FinalistsConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def axes(self, arm: Arm) -> dict[str, Axis]:
        """The axes that an arm searches: the fine-tuned one has no use for alpha and temperature."""
        return {name: axis for name, axis in self.search.items() if arm == "distilled" or name not in FINE_TUNED}

    def budget(self, arm: Arm) -> int:
        """Trials of an arm: never more than its axes have points under a grid, or than 1 without axes."""
        controls = self.study.trials if self.study.controls is None else self.study.controls
        wanted = self.study.trials if arm == "distilled" else controls
        if not self.axes(arm):
            return min(wanted, 1)
        return min(wanted, len(self.grid(arm))) if self.study.sampler == "grid" else wanted

    def finalist_runs(self, finalists: FinalistsConfig | None = None) -> int:
        """How many runs confirm the best, where enough trials complete."""
        wanted = finalists or self.finalists
        return wanted.seeds * sum(min(wanted.top, self.budget(arm)) for arm in ARMS)

    def fitting_finalists(self, named: Collection[str]) -> FinalistsConfig:
        """The finalists with no more runs than the search has trials: the `named` fields as they are, the others at most so.

        Of those that fit, one with a second seed first, since a single one gives no verdict; then the most runs.
        """
        top, seeds, budgets = self.finalists.top, self.finalists.seeds, [self.budget(arm) for arm in ARMS]
        tops = (top,) if "top" in named else range(1, min(top, max(budgets)) + 1)
        counts = (seeds,) if "seeds" in named else range(1, seeds + 1)
        possible = [FinalistsConfig(top=top, seeds=count) for top in tops for count in counts]
        fitting = [each for each in possible if self.finalist_runs(each) <= sum(budgets)] or possible[:1]
        return max(fitting, key=lambda each: (each.seeds > 1, self.finalist_runs(each), each.top, each.seeds))

    def finalist_seeds(self) -> tuple[int, ...]:
        """The seeds of the finalists' runs: those after the search's."""
        first = max(self.values("seed")) + 1
        return tuple(range(first, first + self.finalists.seeds))

    def grid(self, arm: Arm) -> list[dict[str, Any]]:
        """Every point of an arm's grid."""
        axes = self.axes(arm)
        points = [axis.points() or axis.ends() for axis in axes.values()]
        return [dict(zip(axes, point, strict=True)) for point in itertools.product(*points)]

    def fields(self, arm: Arm, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a trial's config is built of: what is fixed, what was sampled, and the arm."""
        return {**self.fixed, **params, **(FINE_TUNED if arm == "fine_tuned" else {})}

    def trial(self, arm: Arm, params: Mapping[str, Any]) -> TrialConfig:
        """The config of one trial as the sweep file has it: `auto` stays `auto`. Raises ConfigError."""
        return TrialConfig(**self.fields(arm, params))

    def values(self, name: str) -> tuple[Any, ...]:
        """Every value a field can take, or the ends of its interval; its fixed or default value where it is not searched."""
        if name in self.search:
            return self.search[name].ends()
        return (self.fixed.get(name, TRIAL_DEFAULTS[name]),)

    def identity(self) -> dict[str, Any]:
        """What must not change while the sweep's results are compared: dotted keys to plain values. Budgets may grow."""
        free = having(StudyConfig, Trait.FREE)
        study = {f"study.{key}": value for key, value in dataclasses.asdict(self.study).items() if key not in free}
        study |= {f"study.constraints.{key}": limit for key, limit in self.study.constraints.limits().items()}
        fixed = {f"fixed.{key}": value for key, value in self.fixed.items()}
        search = {f"search.{key}": axis.text() for key, axis in self.search.items()}
        queue = {f"enqueue[{index}]": str(dict(item)) for index, item in enumerate(self.enqueue)}
        return {"recipe_version": RECIPE_VERSION, **study, **fixed, **search, **queue}


def identity_changes(old: Mapping[str, Any], new: Mapping[str, Any], *, word: str = "now") -> list[str]:
    """What differs between two identities, a line each: `fixed.epochs: 2, now 3`."""
    missing = "not set"
    keys = [*old, *(key for key in new if key not in old)]
    pairs = [(key, old.get(key, missing), new.get(key, missing)) for key in keys]
    return [f"  {key}: {before}, {word} {after}" for key, before, after in pairs if before != after]


def sweep_yaml(sweep: SweepConfig) -> str:
    """The resolved sweep as YAML, which `load_sweep` reads back to an equal one."""
    study, tracking = dataclasses.asdict(sweep.study), dataclasses.asdict(sweep.tracking)
    finalists = dataclasses.asdict(sweep.finalists)
    axes = {}
    for name, axis in sweep.search.items():
        choices = [list(value) if isinstance(value, tuple) else value for value in axis.choices]
        given = dataclasses.asdict(axis) | {"choices": choices or None}
        axes[name] = {key: value for key, value in given.items() if value is not None and value is not False}
    listed, fixed = [plain_values(item) for item in sweep.enqueue], plain_values(sweep.fixed)
    tracking["tags"] = list(tracking["tags"])
    search = {"fixed": fixed, "search": axes, "enqueue": listed}
    return to_yaml({"name": sweep.name, "study": study, **search, "finalists": finalists, "tracking": tracking})
