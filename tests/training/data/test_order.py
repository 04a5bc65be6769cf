"""Which rows each step takes: every row in turn, fixed shares of labelled rows and texts without labels, the same from any step."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from kdsweep.config.trial import TrialConfig
from kdsweep.training.data.order import batches_of_steps, labeled_share, steps_per_pass
from kdsweep.training.data.tokens import Rows, Tokens, training_batches

Config = Callable[..., TrialConfig]


def rows_of(labeled: int, extra: int) -> Rows:
    """Rows of 3 to 12 tokens."""
    lengths = np.random.default_rng(0).integers(3, 13, labeled + extra)
    starts = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)[:-1]]))
    tokens = Tokens(
        ids=torch.arange(int(lengths.sum())), segments=None, starts=starts, lengths=lengths.astype(np.int64), pad_id=0
    )
    labels = torch.tensor([0] * labeled + [-1] * extra)
    return Rows(tokens=tokens, labels=labels, targets={}, extra=extra)


def taken(rows: Rows, config: TrialConfig, first: int, last: int) -> list[list[int]]:
    return [batch.rows.tolist() for batch in batches_of_steps(rows, config, first=first, last=last)]


def test_without_texts_the_steps_are_the_batches_of_one_pass_after_the_other(tiny_config: Config) -> None:
    rows, config = rows_of(75, 0), tiny_config(batch_size=16, seed=3)
    passes = [training_batches(rows.tokens, batch_size=16, seed=3, epoch=epoch) for epoch in (1, 2, 3)]
    assert taken(rows, config, 1, 15) == [batch.rows.tolist() for each in passes for batch in each]
    assert taken(rows, config, 5, 8) == taken(rows, config, 1, 15)[4:8]


@pytest.mark.parametrize(("share", "labeled"), [(None, 256), (0.5, 1280), (0.25, 1920), (0.0, 2560), (1.0, 160)])
def test_a_batch_holds_the_share_of_texts_without_labels_and_never_lacks_a_label(
    tiny_config: Config, share: float | None, labeled: int
) -> None:
    rows, config = rows_of(20, 180), tiny_config(batch_size=16, unlabeled_share=share, unlabeled_file="texts.csv")
    batches = taken(rows, config, 1, 160)  # ten windows
    known = [sum(row < 20 for row in batch) for batch in batches]
    assert all(len(batch) == 16 for batch in batches) and min(known) >= 1 and max(known) - min(known) <= 1
    assert sum(known) == labeled and labeled_share(rows, config) == pytest.approx(labeled / 2560)


def test_every_row_of_both_kinds_comes_equally_often(tiny_config: Config) -> None:
    rows, config = rows_of(20, 180), tiny_config(batch_size=16, unlabeled_share=0.75, unlabeled_file="texts.csv")
    counts = Counter(row for batch in taken(rows, config, 1, 240) for row in batch)
    assert {counts[row] for row in range(20)} == {48} and {counts[row] for row in range(20, 200)} == {16}
    assert steps_per_pass(rows, config) == 13


def test_a_training_that_is_continued_takes_the_rows_that_it_would_have_taken(tiny_config: Config) -> None:
    rows, config = rows_of(20, 180), tiny_config(batch_size=16, unlabeled_share=0.7, unlabeled_file="texts.csv")
    whole = taken(rows, config, 1, 80)
    assert all(taken(rows, config, first, 80) == whole[first - 1 :] for first in (1, 2, 16, 17, 33, 50, 80))
    assert whole != taken(rows, replace(config, seed=1), 1, 80)


def test_rows_of_one_batch_have_about_one_length(tiny_config: Config) -> None:
    rows, config = rows_of(200, 1800), tiny_config(batch_size=16)
    spread = [np.ptp(rows.tokens.lengths[batch]) for batch in taken(rows, config, 1, 64)]
    assert np.mean(spread) < 2


def test_batches_name_their_rows_on_the_host_too(tiny_config: Config) -> None:
    rows = rows_of(20, 180)
    for batch in batches_of_steps(rows, tiny_config(batch_size=16), first=1, last=20):
        assert batch.numbers is not None and batch.numbers.tolist() == batch.rows.tolist()
        assert batch.inputs["input_ids"].shape == (16, rows.tokens.lengths[batch.numbers].max())
