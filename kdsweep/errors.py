"""Everything that kdsweep raises on purpose.

    KDSweepError            one clear message for the user, exit code 2, no traceback
    ├── ConfigError         a sweep file, an override or a trial's config
    ├── AssetError          weights or data that cannot be fetched or do not match their hash
    ├── DataError           a dataset: missing, empty, mislabelled, too small
    ├── ModelError          a teacher or student that cannot be used
    ├── PreflightError      a check that failed before any trial was paid for
    ├── LibraryError        an installed library that lacks a private part that nothing public stands in for
    └── ResultsError        a results folder: another sweep's, unfinished, not writable
    TrialFailed             one trial fails, the sweep goes on
    ├── NonFiniteLoss       the loss became nan or inf; names the step
    └── DoesNotFit          one row alone is too large for the memory
    Superseded              somebody else runs this trial by now: what is left of this attempt is given up
    Stopped                 a sweep was stopped by a signal; nothing is lost
    WorkerCrashed           a bug inside a worker, with its traceback
    Interrupted             somebody asked this process to stop; like KeyboardInterrupt no Exception, so nobody swallows it

Anything else is a bug and keeps its traceback.
"""

from collections.abc import Iterable, Mapping, Sequence

NAMES_SHOWN = 10


def listed(names: Sequence[str]) -> str:
    """Return `names` as a list of the first ten, and how many more there are."""
    shown = ", ".join(repr(name) for name in names[:NAMES_SHOWN])
    return f"[{shown}]" if len(names) <= NAMES_SHOWN else f"[{shown}, … and {len(names) - NAMES_SHOWN} more]"


class KDSweepError(Exception):
    """A problem that its message lets the user solve."""


class ConfigError(KDSweepError):
    """One or more problems of a sweep file, an override or a config."""

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class AssetError(KDSweepError):
    """Weights or data that cannot be fetched or do not match their hash."""


class DataError(KDSweepError):
    """A dataset that is missing, empty, mislabelled or too small."""


class ModelError(KDSweepError):
    """A teacher or a student that cannot be used."""


class PreflightError(KDSweepError):
    """A check that failed before any trial was paid for."""


class LibraryError(KDSweepError):
    """An installed library that lacks what kdsweep needs of it, since it is newer or older than the ones that were tested."""


class ResultsError(KDSweepError):
    """A results folder that is another sweep's, unfinished or not writable."""


class TrialFailed(Exception):
    """This trial failed by itself: it is recorded as failed and the sweep goes on."""


class NonFiniteLoss(TrialFailed):
    """The training loss became nan or infinite."""

    def __init__(self, step: int, losses: Mapping[str, float]) -> None:
        self.step = step
        named = " and ".join(f"{name} was {value}" for name, value in losses.items())
        super().__init__(
            f"the loss must stay finite, but at step {step} {named}; "
            "a lower learning_rate or precision: fp32 usually helps"
        )


class DoesNotFit(TrialFailed):
    """A single row does not fit in memory, so cutting the batch further cannot help."""

    def __init__(self, step: int, tokens: int, error: BaseException) -> None:
        super().__init__(
            f"a row must fit in memory, but at step {step} one of {tokens} tokens did not ({str(error).splitlines()[0]}); "
            "a lower max_length or a smaller student helps"
        )


class Superseded(Exception):
    """This attempt was taken for dead (suspended, cut off) and its trial is run by somebody else."""


class Stopped(Exception):
    """SIGINT or SIGTERM stopped a sweep: in order, or at once (`killed`) after a second one."""

    def __init__(self, number: int, *, killed: bool) -> None:
        self.number, self.killed = number, killed
        super().__init__(f"signal {number}")


class WorkerCrashed(Exception):
    """A bug inside a worker, with its traceback."""


class Interrupted(BaseException):
    """This process was asked to stop (SIGTERM, or its parent died)."""
