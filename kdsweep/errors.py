"""Define every exception that kdsweep raises on purpose.

    KDSweepError            one clear message for the user, exit code 2, no traceback
    ├── ConfigError         a sweep file, an override or a trial's config
    ├── AssetError          weights or data that cannot be fetched or do not match their hash
    ├── DataError           a dataset: missing, empty, mislabelled, too small
    ├── ModelError          a teacher or student that cannot be used
    ├── PreflightError      a check that failed before any trial ran
    ├── LibraryError        an installed library that lacks a private part without public substitute
    ├── ResultsError        a results folder: another sweep's, unfinished, not writable
    └── ShippingError       a student that cannot be exported, or an exported folder that cannot be used
    TrialFailed             one trial fails, the sweep continues
    ├── NonFiniteLoss       the loss became nan or inf; names the step
    └── DoesNotFit          one row alone is too large for the memory
    Superseded              another process runs this trial by now: this attempt is given up
    Stopped                 a sweep was stopped by a signal; nothing is lost
    WorkerCrashed           a bug inside a worker, with its traceback
    Interrupted             this process was asked to stop; like KeyboardInterrupt no Exception, so that no handler swallows it

Anything else is a bug and keeps its traceback.
"""

from collections.abc import Iterable, Mapping, Sequence

NAMES_SHOWN = 10


def listed(names: Sequence[str]) -> str:
    """Return the first ten of `names` as a list in text, and how many more there are."""
    shown = ", ".join(repr(name) for name in names[:NAMES_SHOWN])
    return f"[{shown}]" if len(names) <= NAMES_SHOWN else f"[{shown}, … and {len(names) - NAMES_SHOWN} more]"


class KDSweepError(Exception):
    """Reports a problem that its message lets the user solve."""


class ConfigError(KDSweepError):
    """Reports one or more problems of a sweep file, an override or a config."""

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class AssetError(KDSweepError):
    """Reports weights or data that cannot be fetched or do not match their hash."""


class DataError(KDSweepError):
    """Reports a dataset that is missing, empty, mislabelled or too small."""


class ModelError(KDSweepError):
    """Reports a teacher or a student that cannot be used."""


class PreflightError(KDSweepError):
    """Reports a check that failed before any trial ran."""


class LibraryError(KDSweepError):
    """Reports an installed library that lacks what kdsweep needs of it, since it is newer or older than the ones that were tested."""


class ResultsError(KDSweepError):
    """Reports a results folder that is another sweep's, unfinished or not writable."""


class ShippingError(KDSweepError):
    """Reports a student that cannot be exported, or an exported folder that cannot be used."""


class TrialFailed(Exception):
    """Reports that a trial failed by itself: it is recorded as failed and the sweep continues."""


class NonFiniteLoss(TrialFailed):
    """Reports that the training loss became nan or infinite, and at which step."""

    def __init__(self, step: int, losses: Mapping[str, float]) -> None:
        self.step = step
        named = " and ".join(f"{name} was {value}" for name, value in losses.items())
        super().__init__(
            f"the loss must stay finite, but at step {step} {named}; "
            "a lower learning_rate or precision: fp32 usually helps"
        )


class DoesNotFit(TrialFailed):
    """Reports that a single row does not fit in memory, so cutting the batch further cannot help."""

    def __init__(self, step: int, tokens: int, error: BaseException) -> None:
        super().__init__(
            f"a row must fit in memory, but at step {step} one of {tokens} tokens did not ({str(error).splitlines()[0]}); "
            "a lower max_length or a smaller student helps"
        )


class Superseded(Exception):
    """Reports that an attempt was taken for dead (suspended, cut off) and that another process runs its trial."""


class Stopped(Exception):
    """Reports that SIGINT or SIGTERM stopped a sweep: in order, or at once (`killed`) after a second signal."""

    def __init__(self, number: int, *, killed: bool) -> None:
        self.number, self.killed = number, killed
        super().__init__(f"signal {number}")


class WorkerCrashed(Exception):
    """Reports a bug inside a worker, with its traceback."""


class Interrupted(BaseException):
    """Reports that a process was asked to stop (by SIGTERM, or because its parent died)."""
