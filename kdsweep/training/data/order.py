"""Order the rows of a training into the batches of its steps: which rows each step takes, at any step, without those before it.

Without texts that have no label (`Rows.extra` is 0), a pass takes every row once (`training_batches`). With them, every batch is made of
labelled rows and such texts in fixed shares, each drawn from endless passes of its own.
"""

import itertools
from collections.abc import Iterator

import numpy as np

from kdsweep.config.trial import TrialConfig
from kdsweep.training.data.tokens import WINDOW_BATCHES, Batch, Rows, gathered, training_batches


def batches_of_steps(rows: Rows, config: TrialConfig, *, first: int, last: int) -> Iterator[Batch]:
    """Yield the batches of the steps `first` to `last`, counted from 1, both included."""
    batches = _mixed if rows.extra else _passes
    return itertools.islice(batches(rows, config, first), last - first + 1)


def steps_per_pass(rows: Rows, config: TrialConfig) -> int:
    """Return how many steps take as many rows as there are: rows / batch_size, rounded up."""
    return -(-len(rows.labels) // config.batch_size)


def _passes(rows: Rows, config: TrialConfig, first: int) -> Iterator[Batch]:
    passed, skipped = divmod(first - 1, steps_per_pass(rows, config))
    for epoch in itertools.count(passed + 1):
        batches = training_batches(rows.tokens, batch_size=config.batch_size, seed=config.seed, epoch=epoch)
        yield from itertools.islice(batches, skipped, None)
        skipped = 0


def labeled_share(rows: Rows, config: TrialConfig) -> float:
    """Return the mean number of labelled rows in a batch over its size: 1 - unlabeled_share (null: their share of all rows), and at least one row."""
    extra = rows.extra / len(rows.labels) if config.unlabeled_share is None else config.unlabeled_share
    return max(1 / config.batch_size, 1 - extra)


def _mixed(rows: Rows, config: TrialConfig, first: int) -> Iterator[Batch]:
    """Yield batches of labelled rows and of texts without labels, window by window.

    Of `batch_size` rows, batch k has floor(k l) - floor((k - 1) l) labelled ones, l = batch_size · labeled_share. Inside a window of
    `WINDOW_BATCHES` batches both kinds are sorted by length, so that a batch holds rows of about one length; then batches are shuffled.
    """
    size, known = config.batch_size, len(rows.labels) - rows.extra
    each = size * labeled_share(rows, config)
    labeled, others = _Endless(known, (config.seed, 0)), _Endless(rows.extra, (config.seed, 1))
    window, skipped = divmod(first - 1, WINDOW_BATCHES)
    while True:
        ends = [int(each * step + 1e-6) for step in range(window * WINDOW_BATCHES, (window + 1) * WINDOW_BATCHES + 1)]
        steps = np.arange(window * WINDOW_BATCHES, (window + 1) * WINDOW_BATCHES + 1)
        mine = _by_length(rows, labeled.rows(ends[0], ends[-1]))
        theirs = _by_length(rows, known + others.rows(size * steps[0] - ends[0], size * steps[-1] - ends[-1]))
        cuts = np.array(ends) - ends[0]
        pairs = zip(np.split(mine, cuts[1:-1]), np.split(theirs, (size * (steps - steps[0]) - cuts)[1:-1]), strict=True)
        together = [np.concatenate(pair) for pair in pairs]
        order = np.random.default_rng((config.seed, 2, window)).permutation(WINDOW_BATCHES)[skipped:]
        yield from gathered(rows.tokens, [together[place] for place in order])
        window, skipped = window + 1, 0


def _by_length(rows: Rows, numbers: np.ndarray) -> np.ndarray:
    ordered: np.ndarray = numbers[np.argsort(rows.tokens.lengths[numbers], kind="stable")]
    return ordered


class _Endless:
    """Draws from `count` numbers in endless passes, each a permutation that `seed` and the pass decide."""

    def __init__(self, count: int, seed: tuple[int, ...]) -> None:
        self._count, self._seed = count, seed
        self._pass, self._order = -1, np.arange(0)

    def rows(self, first: int, stop: int) -> np.ndarray:
        """Return the draws number `first` to `stop` - 1, counted from 0."""
        parts = [np.arange(0)]
        while first < stop:
            turn, place = divmod(first, self._count)
            if turn != self._pass:
                self._pass, self._order = turn, np.random.default_rng((*self._seed, turn)).permutation(self._count)
            parts.append(self._order[place : place + stop - first])
            first += len(parts[-1])
        return np.concatenate(parts)
