"""Read a sweep file: find every problem before anything runs, and show all of them at once."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_type_hints
from urllib.parse import parse_qs, urlsplit

from kdsweep.config.arms import Arm
from kdsweep.config.axis import Axis
from kdsweep.config.conditions import When, condition_problems
from kdsweep.config.forms import Constraints, ExportConfig, constraint_problems, export_problems
from kdsweep.config.lengths import few_steps_problems, unread_problems
from kdsweep.config.roles import broken_rules
from kdsweep.config.sweep import LONGEST_TAG, FinalistsConfig, StudyConfig, SweepConfig, TrackingConfig
from kdsweep.config.sweep_problems import sweep_problems
from kdsweep.config.task_problems import task_problems
from kdsweep.config.tasks import METRICS, stated_task
from kdsweep.config.trial import FIELD_TYPES
from kdsweep.config.trial_fields import NUMBERS, PATH_FIELDS, TRIAL_DEFAULTS, UNSEARCHABLE
from kdsweep.config.yaml import converted, did_you_mean, read_yaml, spelled
from kdsweep.errors import ConfigError

LONGEST_NAME = 64
"""Characters of a sweep's name: file systems take 255, W&B takes 64 in a tag and 128 in a run's id, of which the name is a part."""

NOT_IN_NAMES = "/\\#?%:"
"""Characters that W&B refuses in a project's name."""


def load_sweep(path: Path, overrides: Sequence[str] = (), *, recorded: bool = False) -> SweepConfig:
    """Read and check a sweep file. Raises ConfigError with every problem found, each on a line.

    A file `recorded` in a results folder may have names that W&B refuses, since it ran before they were checked; its paths stay as they are.
    """
    content = read_yaml(path, overrides)
    problems: list[str] = []
    known = [item.name for item in dataclasses.fields(SweepConfig)]
    problems += [f"unknown key {key!r}{did_you_mean(key, known)}" for key in content if key not in known]
    name = _name(content.get("name"), path, overrides, problems)
    study = _section(StudyConfig, "study", content.get("study"), problems)
    tracking = _optional(TrackingConfig(mode="off"), "tracking", content, problems)
    finalists = _optional(FinalistsConfig(top=0), "finalists", content, problems)
    problems += _study_problems(study)
    problems += [] if recorded else _tracking_problems(tracking)
    problems += _range_problems(finalists, "finalists.")
    export = _section(ExportConfig, "export", content.get("export"), problems)
    problems += [*_range_problems(export, "export."), *export_problems(export)]
    unbuildable: list[str] = []
    fixed = _fixed(content.get("fixed"), content.get("search"), unbuildable, recorded=recorded)
    search = _search(content.get("search"), fixed, unbuildable)
    if "metric" not in (content["study"] if isinstance(content.get("study"), dict) else {}):
        study = dataclasses.replace(study, metric=METRICS[stated_task(fixed) or "single_label"][0])
    if study.sampler == "grid":
        rule = "grid needs choices, or low, high and step"
        problems += [
            f"search.{key}: {rule}, but got {axis.text()}" for key, axis in search.items() if axis.points() is None
        ]
    dropped = (
        {key for key, body in (content.get("search") or {}).items() if body is None}
        if isinstance(content.get("search"), dict)
        else set()
    )
    enqueue = _enqueue(content.get("enqueue"), search, dropped, problems)
    parts: dict[str, Any] = {"study": study, "finalists": finalists, "tracking": tracking, "export": export}
    sweep = SweepConfig(name=name, fixed=fixed, search=search, enqueue=enqueue, **parts)
    problems += unbuildable or [
        *_task_problems(sweep),
        *sweep_problems(sweep),
        *few_steps_problems(sweep),
        *unread_problems(sweep),
    ]
    if problems:
        raise ConfigError(f"{path}: {problem}" for problem in dict.fromkeys(problems))
    if "finalists" in content and content["finalists"] is None:
        return sweep
    return dataclasses.replace(sweep, finalists=sweep.fitting_finalists(content.get("finalists", {})))


def _name(value: object, path: Path, overrides: Sequence[str], problems: list[str]) -> str:
    """Return the sweep's name as it is written (2024 and 007 are names too), and append what is wrong with it to `problems`."""
    name = spelled("name", path, overrides) if isinstance(value, int | float) else value
    if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name)):
        problems.append(
            "name must be letters, digits, '.', '_' or '-', and begin with a letter or digit (it names a folder in results/), "
            f"but got {value if name is None else name!r}"
        )
    elif len(name) > LONGEST_NAME:
        problems.append(
            f"name must have at most {LONGEST_NAME} characters (it is part of every run's id), but has {len(name)}: {name[:20]}…"
        )
    return str(name)


Section = TypeVar("Section", StudyConfig, Constraints, FinalistsConfig, TrackingConfig, ExportConfig)


def _optional(off: Section, name: str, content: Mapping[str, Any], problems: list[str]) -> Section:
    """Return a section of the file: `off` where it is null, its defaults where the file lacks it."""
    return off if name in content and content[name] is None else _section(type(off), name, content.get(name), problems)


def _section(kind: type[Section], name: str, content: object, problems: list[str]) -> Section:
    if content is None:
        return kind()
    if not isinstance(content, dict):
        problems.append(f"{name} must be a mapping, but got {content!r}")
        return kind()
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key not in hints:
            problems.append(f"{name}: unknown key {key!r}{did_you_mean(key, hints)}")
            continue
        if dataclasses.is_dataclass(hints[key]):
            values[key] = _section(hints[key], f"{name}.{key}", value, problems)
            continue
        try:
            values[key] = converted(value, hints[key])
        except TypeError as error:
            problems.append(f"{name}.{key} {error}")
    return kind(**values)


def _range_problems(section: object, prefix: str) -> list[str]:
    return [f"{rule} must hold, but got {given}" for rule, given in broken_rules(section, prefix)]


def _study_problems(study: StudyConfig) -> list[str]:
    problems = _range_problems(study, "study.") + _range_problems(study.constraints, "study.constraints.")
    problems += constraint_problems(study.constraints)
    return problems + (_storage_problems(study.storage) if study.storage else [])


def _task_problems(sweep: SweepConfig) -> list[str]:
    """List what does not go with the task that the file states; where the data decide, that is checked once they are read."""
    task = stated_task(sweep.fixed)
    return task_problems(sweep, task) if task else []


def _tracking_problems(tracking: TrackingConfig) -> list[str]:
    """List where names break W&B's rules: a run that breaks one cannot be opened, not even offline."""
    problems = []
    for key in ("project", "entity"):
        name = getattr(tracking, key)
        if name is not None and (len(name) > 128 or name != name.strip() or set(name) & set(NOT_IN_NAMES)):
            rule = f"at most 128 characters, without {' '.join(NOT_IN_NAMES)} and without blanks at its ends"
            way_out = ""
            if key == "project" and "/" in name:
                way_out = f"; the team or user goes into tracking.entity={name.split('/')[0] or 'TEAM'}"
            problems.append(f"tracking.{key} has {rule} (W&B's rules), but got {name!r}{way_out}")
    problems += _registry_problems(tracking)
    long = [tag for tag in tracking.tags if len(tag) > LONGEST_TAG]
    return problems + [
        f"tracking.tags have 1 to {LONGEST_TAG} characters (W&B's rule), but got {tag!r}" for tag in long
    ]


def _registry_problems(tracking: TrackingConfig) -> list[str]:
    """List why the model artifact could not be linked to `tracking.registry`."""
    if tracking.registry is None:
        return []
    problems = []
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", tracking.registry):
        problems.append(
            "tracking.registry is the name of a registry, or NAME/COLLECTION, of letters, digits, '.', '_' and '-', but got "
            f"{tracking.registry!r}"
        )
    if not tracking.log_model:
        problems.append(
            f"tracking.registry links the model artifact, which tracking.log_model sends, but got registry {tracking.registry!r} "
            "without it; say tracking.log_model=true too"
        )
    return problems


def _storage_problems(storage: str) -> list[str]:
    """List what is wrong with a storage address; a password is, since sweep files are shared and everybody on the machine sees a command line."""
    address = urlsplit(storage)
    problems = []
    if address.scheme != "postgresql+psycopg" or not address.path.strip("/"):
        rule = "study.storage must read postgresql+psycopg://[user@]host[:port]/database, or null for an SQLite file"
        problems.append(f"{rule} in the results folder, but its scheme is {address.scheme or 'missing'!r}")
    if address.password is not None or any("password" in key.lower() for key in parse_qs(address.query)):
        problems.append("study.storage must not hold a password (sweep files are shared); use ~/.pgpass or PGPASSWORD")
    return problems


def _fixed(content: object, searched: object, problems: list[str], *, recorded: bool) -> dict[str, Any]:
    """Return the fixed fields. A null means that a field is not fixed, where the field is searched or cannot be null.

    Existing paths become absolute, but not `recorded` ones: a file made since then is another one.
    """
    if not isinstance(content, dict):
        problems.append(
            f"fixed must be a mapping that names at least the teacher (teacher or teacher_file) and the data, but got {content!r}"
        )
        return {}
    problems += [
        f"fixed: unknown key {key!r}{did_you_mean(key, FIELD_TYPES)}" for key in content if key not in FIELD_TYPES
    ]
    axes = (
        {k for k, body in searched.items() if body is not None and not _is_limited(body)}
        if isinstance(searched, dict)
        else set()
    )
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in content.items()
        if key in FIELD_TYPES and (value is not None or (key not in axes and _takes_null(key)))
    }
    for key in () if recorded else PATH_FIELDS:
        place = values.get(key)
        if isinstance(place, str) and place and Path(place).expanduser().exists():  # an empty path is refused later
            values[key] = str(Path(place).expanduser().resolve())
    return values


def _takes_null(key: str) -> bool:
    return type(None) in get_args(FIELD_TYPES[key])


def _search(content: object, fixed: Mapping[str, Any], problems: list[str]) -> dict[str, Axis]:
    if not isinstance(content, dict) or not any(content.values()):
        problems.append(
            f"search must name at least one axis, such as temperature: {{low: 1.0, high: 8.0}}, but got {content!r}"
        )
        return {}
    axes: dict[str, Axis] = {}
    for key, body in content.items():
        if body is None:
            continue
        if key not in FIELD_TYPES:
            problems.append(f"search: unknown key {key!r}{did_you_mean(key, FIELD_TYPES)}")
        elif key in UNSEARCHABLE:
            problems.append(
                f"search.{key}: trials that differ in {key} cannot be ranked against each other; put it under fixed"
            )
        elif key in fixed and not _is_limited(body):
            problems.append(
                f"{key} is both fixed and searched; remove one (on the command line, search.{key}=null drops the axis, and "
                f"fixed.{key}=null the fixed value)"
            )
        elif (axis := _axis(key, body, problems)) is not None:
            axes[key] = axis
    others = {key: value for key, value in {**TRIAL_DEFAULTS, **fixed}.items() if key not in axes}
    named = {key: axis.when for key, axis in axes.items()}
    problems += condition_problems(named, {key: axis.choices for key, axis in axes.items()}, others)
    return axes


def _is_limited(body: object) -> bool:
    """Return whether an axis is searched in some arms or under a condition alone, so that its field may have a fixed value too."""
    return isinstance(body, dict) and bool(body.get("arms") or body.get("when"))


def _when(content: object) -> When:
    """Return an axis's condition, its values as the types of their fields. Raises TypeError for what is none."""
    if not isinstance(content, dict) or not all(isinstance(values, list) and values for values in content.values()):
        raise TypeError(f"when must read {{field: [value, ...]}}, such as {{soft_loss: [kl]}}, but got {content!r}")
    if unknown := [name for name in content if name not in FIELD_TYPES]:
        raise TypeError(f"when: unknown key {unknown[0]!r}{did_you_mean(unknown[0], FIELD_TYPES)}")
    return {name: tuple(converted(value, FIELD_TYPES[name]) for value in values) for name, values in content.items()}


def _axis(key: str, body: object, problems: list[str]) -> Axis | None:
    if not isinstance(body, dict):
        problems.append(f"search.{key} must read {{low: …, high: …}} or {{choices: [...]}}, but got {body!r}")
        return None
    hints = {item.name: item.type for item in dataclasses.fields(Axis)}
    unknown = [f"search.{key}: unknown key {name!r}{did_you_mean(name, hints)}" for name in body if name not in hints]
    whole = NUMBERS.get(key) is int
    try:
        numbers = {
            name: converted(body[name], int if whole else float)
            for name in ("low", "high", "step")
            if body.get(name) is not None
        }
        given = {name: value for name, value in body.items() if value is not None}
        log = converted(given.get("log", False), bool)
        choices = given.get("choices", ())
        if not isinstance(choices, list | tuple):
            raise TypeError(f"choices must be a list, but got {choices!r}")
        made = tuple(converted(choice, FIELD_TYPES[key]) for choice in choices)
        if numbers and key not in NUMBERS:
            raise TypeError("takes choices, not low and high")
        arms = converted(given.get("arms", ()), tuple[Arm, ...])
        axis = Axis(**numbers, log=log, choices=made, arms=arms, when=_when(given.get("when", {})))
    except (TypeError, ConfigError) as error:
        problems += unknown + [f"search.{key}: {line}" for line in str(error).splitlines()]
        return None
    problems += unknown
    return axis


def _enqueue(
    content: object, search: Mapping[str, Axis], dropped: set[str], problems: list[str]
) -> tuple[dict[str, Any], ...]:
    if content is None:
        return ()
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        problems.append(
            f"enqueue must be a list of mappings such as {{alpha: 1.0, temperature: 2.0}}, but got {content!r}"
        )
        return ()
    queue = []
    for item in content:
        point = {}
        for key, value in cast(dict[str, Any], item).items():
            if key in dropped:
                continue
            if key not in search:
                problems.append(f"enqueue: {key!r} is no searched field{did_you_mean(key, search)}")
                continue
            if search[key].arms and "distilled" not in search[key].arms:
                problems.append(
                    f"enqueue: the distilled arm tries the points, but does not search {key} (search.{key}.arms)"
                )
                continue
            try:
                point[key] = converted(value, FIELD_TYPES[key])
            except TypeError as error:
                problems.append(f"enqueue: {key} {error}")
                continue
            if not search[key].holds(point[key]):
                problems.append(f"enqueue: {key} must lie in {search[key].text()}, but got {value!r}")
        queue.append(point)
    return tuple(queue)
