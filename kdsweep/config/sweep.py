"""Define what a sweep file holds: what is fixed, what is searched, how long, and where it is tracked."""

import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from kdsweep.config import conditions
from kdsweep.config.arms import ARMS, FIXED_BY, PRIMARY, Arm, Stage
from kdsweep.config.axis import Axis
from kdsweep.config.forms import Constraints, ExportConfig
from kdsweep.config.roles import NOT_NEGATIVE, POSITIVE, Range, Trait, having
from kdsweep.config.tasks import Metric
from kdsweep.config.trial import RECIPE_VERSION, TrialConfig
from kdsweep.config.trial_fields import TRIAL_DEFAULTS
from kdsweep.config.yaml import plain_values, to_yaml

Resolved = Literal["online", "offline", "off"]
"""How W&B is reached, once `auto` is resolved."""
AT_LEAST_ONE = Range(least=1)
UNLABELED_SOURCES = ("unlabeled_file", "unlabeled_split", "unlabeled_rest")
"""Fields that bring texts without labels."""


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Describes the search: how many trials, and which of Optuna's samplers and pruners."""

    trials: Annotated[int, AT_LEAST_ONE, Trait.FREE] = 20
    """Trials of the distilled arm, in total over all runs of the sweep."""
    controls: Annotated[int | None, NOT_NEGATIVE, Trait.FREE] = None
    """Trials of the fine-tuned arm; null: as many as `trials`."""
    pseudo_labeled: Annotated[int | None, NOT_NEGATIVE, Trait.FREE] = None
    """Trials of the pseudo-labeled arm, which a sweep with texts without labels has; null: as many as `trials`, 0: no such arm."""
    sampler: Literal["tpe", "gp", "random", "grid"] = "tpe"
    """tpe: Optuna's TPE, which learns from earlier trials; gp: its Gaussian process, which learns from the complete ones and samples conditional
    axes at random; random: random points; grid: every point of axes that have choices or a step."""
    metric: Metric = "val_accuracy"
    """What the search maximises and the leaderboard ranks by. single_label: val_accuracy, or for classes of very different size val_macro_f1 or
    val_mcc; multi_label: val_example_f1, val_micro_f1, val_macro_f1, val_map or val_accuracy (all labels of a row right); regression:
    val_pearson or val_spearman. A file that names none gets the first of its fixed.task."""
    constraints: Annotated[Constraints, Trait.FREE] = field(default_factory=Constraints)
    """Limits on latency and size; students that break one are not ranked."""
    pruner: Literal["median", "hyperband", "none"] = "median"
    """Which trials are stopped after an epoch. median: those below the median of the other trials at the same epoch."""
    startup_trials: Annotated[int, AT_LEAST_ONE] = 5
    """Random trials before tpe or gp starts to model, and trials before the median pruner starts to prune."""
    warm_start: tuple[str, ...] = ()
    """Results folders of earlier sweeps. The best distinct configurations of each arm, best first and at most `startup_trials` of them, are
    fitted into this sweep's axes and tried after the `enqueue`d ones; a sweep reads them once, when it starts."""
    lag: Annotated[int | None, NOT_NEGATIVE] = 2
    """Trial n is proposed and pruned by the results of trials 0 to n - lag - 1, and waits for them: so up to lag + 1 trials of an
    arm run side by side, and the search does not depend on which one is faster. null: by all trials that have ended, in any order."""
    accept_weak_teacher: Annotated[bool, Trait.FREE] = False
    """Whether the search continues with a teacher that is hardly better than always predicting the most common class."""
    seed: Annotated[int, NOT_NEGATIVE] = 0
    """Seed of the sampler; trial n gets the same proposal however often the sweep is resumed."""
    storage: Annotated[str | None, Trait.FREE] = None
    """`postgresql+psycopg://host/database` that several hosts share; null: an SQLite file in the results folder."""
    keep_students: Annotated[int, AT_LEAST_ONE, Trait.FREE] = 3
    """Best students of each arm kept on disk, and as many of its finalists, the best run of each configuration first; records are kept of all."""
    target: Annotated[float | None, Range(above=0, most=1), Trait.FREE] = None
    """Stop the search when a trial reaches this `metric`, in (0, 1]; running trials are checkpointed. null: run all."""
    timeout_minutes: Annotated[float | None, POSITIVE, Trait.FREE] = None
    """Stop when at least one worker has run for so many minutes in all, over all runs of the sweep and hosts; running trials are
    checkpointed, and continue once this is raised. null: no limit."""
    max_attempts: Annotated[int, AT_LEAST_ONE, Trait.FREE] = 3
    """A trial fails once its worker has died so many times while running it (killed for memory, for example)."""
    checkpoint_seconds: Annotated[float, POSITIVE, Trait.FREE] = 60.0
    """Seconds between checkpoints of a running trial, and so the most work that is ever lost."""
    heartbeat_seconds: Annotated[int, AT_LEAST_ONE, Trait.FREE] = 60
    """With `storage`: seconds between a host's signs that its trials are alive; after twice as long without one, others take them over."""


MOST_RUNS, MOST_SEEDS = 10, 3
"""Runs of finalists an arm, and seeds for each, that a sweep file gets which does not name them (`analysis/README.md` says why)."""


@dataclass(frozen=True, kw_only=True)
class FinalistsConfig:
    """Describes the finalists: after the search, the best configurations run once more on fresh seeds, and only for them is the test split opened.

    In a sweep file, a field that is not named is less than its default where the finalists would otherwise be more than half of an
    arm's trials, or take more runs than the search; and `seeds` is more than its default where so few finalists need them.
    `finalists: null` switches them off.
    """

    top: Annotated[int, NOT_NEGATIVE] = MOST_RUNS
    """Best configurations of each arm, by validation; 0: no finalists, and verdicts stay provisional; 1: the verdict is about this pair alone."""
    seeds: Annotated[int, AT_LEAST_ONE] = 1
    """Fresh seeds for each configuration, none of which the search has used. Many configurations of one seed each find smaller differences
    than few of several; a single run an arm gives no verdict: it cannot separate luck from recipe."""
    epochs_factor: Annotated[int, AT_LEAST_ONE] = 1
    """How many times as long as in the search finalists are trained, those of every arm: `epochs`, or `max_steps` and `evaluations`, times this."""


LONGEST_TAG = 64
"""Characters of a tag; W&B refuses a longer one."""


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Describes where the runs are tracked, and what is uploaded."""

    project: str = "kdsweep"
    """W&B's project."""
    entity: str | None = None
    """W&B's team or user that owns the project; null: the user's own default."""
    mode: Literal["auto", "online", "offline", "off"] = "auto"
    """auto: online with a key and a server that answers, else offline; off: no W&B at all."""
    tags: tuple[str, ...] = ()
    """Tags of every run, in addition to those that the sweep gives it."""
    log_model: bool = False
    """Whether the best student goes to W&B as an artifact, weights and config, when the finalists are done."""
    log_texts: bool = False
    """Whether the texts on which teacher and finalists disagree go to W&B as a table, when the finalists are done."""
    workspace: bool = False
    """Whether W&B gets a saved view of the project and a report in words, when the finalists are done and W&B is online."""
    registry: str | None = None
    """W&B's registry that the model artifact is linked to, as `NAME` or `NAME/COLLECTION`; it needs log_model. null: no registry."""
    system_metrics: bool = False
    """Whether every run holds W&B's system metrics: use of CPU, memory, disk, network and GPU, and nothing else of the machine."""


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """Holds a whole sweep; `load_sweep` checks that every end of every axis makes a valid `TrialConfig`."""

    name: str
    """Names the folder in results/ and the runs in W&B: letters, digits, '.', '_' and '-'."""
    fixed: Mapping[str, Any]
    """Fields of a trial that are the same in every trial; those neither fixed nor searched have their defaults."""
    search: Mapping[str, Axis]
    """Fields of a trial that are searched, each with its axis."""
    study: StudyConfig = field(default_factory=StudyConfig)
    enqueue: tuple[Mapping[str, Any], ...] = ()
    """Points that the distilled arm tries first; fields that a point does not name are sampled."""
    finalists: FinalistsConfig = field(default_factory=FinalistsConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    export: ExportConfig = field(default_factory=ExportConfig)

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Return the arms of the sweep: the pseudo-labeled one only where there are texts without labels and trials for it."""
        return ARMS if self._pseudo_labeled() else PRIMARY

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Return the searches of the sweep's arms, then its finalists."""
        return (*self.arms, "finalists")

    def has_unlabeled(self) -> bool:
        """Return whether any trial has texts without labels."""
        return any(value for name in UNLABELED_SOURCES for value in self.values(name))

    def axes(self, arm: Arm) -> dict[str, Axis]:
        """Return the axes that `arm` searches, each after those that its condition names: none of a field that the arm fixes, none that is
        for other arms, and none whose condition cannot hold in the arm."""
        free = {name: axis for name, axis in self.search.items() if name not in FIXED_BY[arm]}
        mine = {name: axis for name, axis in free.items() if not axis.arms or arm in axis.arms}
        constant, found = {**TRIAL_DEFAULTS, **self.fields(arm, {})}, dict[str, Axis]()
        for name in conditions.in_order({name: axis.when for name, axis in mine.items()}):
            never = (field not in found and constant[field] not in values for field, values in mine[name].when.items())
            if not any(never):
                found[name] = mine[name]
        return found

    def applies(self, arm: Arm, axis: Axis, params: Mapping[str, Any]) -> bool:
        """Return whether a trial of `arm` searches an axis, given `params`, its values of the axes before."""
        return not axis.when or axis.applies({**TRIAL_DEFAULTS, **self.fields(arm, params)})

    def searched(self, config: TrialConfig) -> dict[str, Any]:
        """Return a config's value of each searched field; None where the condition of the field's axis does not hold."""
        return {n: getattr(config, n) if axis.applies(vars(config)) else None for n, axis in self.search.items()}

    def budget(self, arm: Arm) -> int:
        """Return the number of trials of `arm`: at most the points of its axes under a grid, and at most 1 without axes."""
        controls = self.study.trials if self.study.controls is None else self.study.controls
        wanted = {"distilled": self.study.trials, "fine_tuned": controls, "pseudo_labeled": self._pseudo_labeled()}[arm]
        if not self.axes(arm):
            return min(wanted, 1)
        return min(wanted, len(self.grid(arm))) if self.study.sampler == "grid" else wanted

    def warm_starts(self) -> bool:
        """Return whether the sweep tries points of earlier ones; a grid has every point of its own."""
        return bool(self.study.warm_start) and self.study.sampler != "grid"

    def _pseudo_labeled(self) -> int:
        """Return how many trials the pseudo-labeled arm is given; 0 without texts for it."""
        wanted = self.study.trials if self.study.pseudo_labeled is None else self.study.pseudo_labeled
        return wanted if self.has_unlabeled() else 0

    def finalist_runs(self, finalists: FinalistsConfig | None = None) -> int:
        """Return how many runs confirm the best configurations, where enough trials complete."""
        wanted = finalists or self.finalists
        return wanted.seeds * sum(min(wanted.top, self.budget(arm)) for arm in self.arms)

    def fitting_finalists(self, named: Collection[str]) -> FinalistsConfig:
        """Return the finalists of a sweep file that names these fields: the `named` ones as they are, the others as few as fit.

        Of those with no more runs than the search has trials, at most half of an arm's trials as finalists and at most `MOST_RUNS`
        runs an arm, take one with two runs or more in every arm, since a single one gives no verdict, then the most finalists, then
        the most seeds; where none fits, the smallest.
        """
        top, seeds, budgets = self.finalists.top, self.finalists.seeds, [self.budget(arm) for arm in self.arms]
        tops = (top,) if "top" in named else range(1, min(top, math.ceil(max(budgets) / 2)) + 1)
        counts = (seeds,) if "seeds" in named else range(1, MOST_SEEDS + 1)
        possible = [dataclasses.replace(self.finalists, top=top, seeds=count) for top in tops for count in counts]
        fitting = [each for each in possible if self._fits(each, named)] or possible[:1]
        fewest = min((budget for budget in budgets if budget), default=0)
        return max(fitting, key=lambda each: (min(each.top, fewest) * each.seeds > 1, each.top, each.seeds))

    def _fits(self, finalists: FinalistsConfig, named: Collection[str]) -> bool:
        """Return whether the finalists take no more runs than the search, and an arm's, unless both fields are named, about `MOST_RUNS`."""
        few = (
            finalists.seeds == 1
            or finalists.top <= max(2, MOST_RUNS // finalists.seeds)
            or {"top", "seeds"} <= set(named)
        )
        return few and self.finalist_runs(finalists) <= sum(self.budget(arm) for arm in self.arms)

    def finalist_seeds(self) -> tuple[int, ...]:
        """Return the seeds of the finalists' runs: those after the largest seed of the search."""
        first = max(self.values("seed")) + 1
        return tuple(range(first, first + self.finalists.seeds))

    def length_factor(self, stage: Stage) -> int:
        """Return how many times as long as a trial of the search one of `stage` is trained."""
        return self.finalists.epochs_factor if stage == "finalists" else 1

    def grid(self, arm: Arm) -> list[dict[str, Any]]:
        """Return every point of the grid of `arm`, without fields whose condition does not hold there; a continuous axis gives its two ends."""
        values = {name: axis.points() or axis.ends() for name, axis in self.axes(arm).items()}
        return conditions.points(values, self._applies(arm))

    def corners(self, arm: Arm = "distilled") -> list[dict[str, Any]]:
        """Return points of `arm` that together have the choices or both ends of every axis, each where its condition holds."""
        axes = self.axes(arm)
        named = {field for axis in axes.values() for field in axis.when}
        return conditions.corners({name: axis.ends() for name, axis in axes.items()}, named, self._applies(arm))

    def _applies(self, arm: Arm) -> conditions.Applies:
        return lambda name, point: self.applies(arm, self.search[name], point)

    def fields(self, arm: Arm, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that a trial's config is built from: the fixed ones, the sampled `params`, and those that the arm fixes."""
        return {**self.fixed, **params, **FIXED_BY[arm]}

    def trial(self, arm: Arm, params: Mapping[str, Any]) -> TrialConfig:
        """Return the config of one trial as the sweep file has it: `auto` stays `auto`. Raises ConfigError where it is not valid."""
        return TrialConfig(**self.fields(arm, params))

    def values(self, name: str) -> tuple[Any, ...]:
        """Return every value that the field `name` can take, or the ends of its interval; its fixed or default value where it is not searched."""
        other = (self.fixed.get(name, TRIAL_DEFAULTS[name]),)
        axis = self.search.get(name)
        return other if axis is None else axis.ends() + (other if axis.when or axis.arms else ())

    def identity(self) -> dict[str, Any]:
        """Return what must not change while the sweep's results are compared: dotted keys to plain values. Budgets may grow."""
        free = having(StudyConfig, Trait.FREE)
        study = {f"study.{key}": value for key, value in dataclasses.asdict(self.study).items() if key not in free}
        if not self.study.warm_start:
            del study["study.warm_start"]  # which older sweeps do not have
        study |= {f"study.constraints.{key}": limit for key, limit in self.study.constraints.limits().items()}
        study |= {"study.constraints.form": form} if (form := self.study.constraints.onnx_form) else {}
        fixed = {f"fixed.{key}": value for key, value in self.fixed.items()}
        search = {f"search.{key}": axis.text() for key, axis in self.search.items()}
        search |= {f"search.{key}.arms": ", ".join(axis.arms) for key, axis in self.search.items() if axis.arms}
        queue = {f"enqueue[{index}]": str(dict(item)) for index, item in enumerate(self.enqueue)}
        return {"recipe_version": RECIPE_VERSION, **study, **fixed, **search, **queue}


def identity_changes(old: Mapping[str, Any], new: Mapping[str, Any], *, word: str = "now") -> list[str]:
    """List what differs between two identities of sweeps, a line each: `fixed.epochs: 2, now 3`."""
    missing = "not set"
    keys = [*old, *(key for key in new if key not in old)]
    pairs = [(key, old.get(key, missing), new.get(key, missing)) for key in keys]
    return [f"  {key}: {before}, {word} {after}" for key, before, after in pairs if before != after]


def sweep_yaml(sweep: SweepConfig) -> str:
    """Return the resolved sweep as YAML, which `load_sweep` reads back to an equal one."""
    study, tracking = dataclasses.asdict(sweep.study), dataclasses.asdict(sweep.tracking)
    finalists = dataclasses.asdict(sweep.finalists)
    axes = {}
    for name, axis in sweep.search.items():
        when = {field: _listed(values) for field, values in axis.when.items()}
        lists = {"choices": _listed(axis.choices) or None, "arms": list(axis.arms) or None, "when": when or None}
        given = dataclasses.asdict(axis) | lists
        axes[name] = {key: value for key, value in given.items() if value is not None and value is not False}
    listed, fixed = [plain_values(item) for item in sweep.enqueue], plain_values(sweep.fixed)
    tracking["tags"], study["warm_start"] = list(tracking["tags"]), list(study["warm_start"])
    export = plain_values(dataclasses.asdict(sweep.export))
    search = {"fixed": fixed, "search": axes, "enqueue": listed}
    rest = {"finalists": finalists, "tracking": tracking, "export": export}
    return to_yaml({"name": sweep.name, "study": study, **search, **rest})


def _listed(values: tuple[Any, ...]) -> list[Any]:
    """Return values as a YAML list holds them: tuples as lists."""
    return [list(value) if isinstance(value, tuple) else value for value in values]
