"""A compact vocabulary trains what the whole one trains, in every family and with any padding."""

from typing import Any

import numpy as np
import pytest
import torch
from encoders import encoder, padded_batch
from torch import nn
from torch.nn import functional

from kdsweep.training.data.tokens import Tokens
from kdsweep.training.fast.vocabulary import compact_vocabulary, restore_vocabulary, why_whole_vocabulary

READ = ("bert", "roberta", "mpnet", "electra", "deberta-v2", "modernbert", "convbert", "mobilebert", "xlnet", "funnel")
"""Families that read their word pieces in different ways; RoBERTa's and MPNet's places count from a padding of 1."""


def tokens_of(batch: dict[str, torch.Tensor], pad_id: int) -> Tokens:
    lengths = batch["attention_mask"].sum(dim=1)
    return Tokens(
        ids=batch["input_ids"][batch["attention_mask"] == 1],
        segments=None,
        starts=torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)[:-1]]),
        lengths=np.asarray(lengths),
        pad_id=pad_id,
    )


def trained(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The logits and weights after two steps with decay, dropout off."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.5)
    for _ in range(2):
        functional.cross_entropy(model.eval()(**batch).logits, torch.tensor([0, 1, 0])).backward()
        optimizer.step()
        optimizer.zero_grad()
    return {"logits": model(**batch).logits.detach()}


@pytest.mark.parametrize("kind", READ)
def test_training_equals_training_on_the_whole_vocabulary(kind: str) -> None:
    changes = {"layers": 1} | ({} if kind in {"roberta", "mpnet"} else {"pad_token_id": 37})
    whole, compact = encoder(kind, **changes), encoder(kind, **changes)
    batch = padded_batch(whole)
    expected = trained(whole, batch)
    assert why_whole_vocabulary(compact) is None
    vocabulary = compact_vocabulary(compact, [tokens_of(batch, compact.config.pad_token_id or 0)])
    assert len(compact.get_input_embeddings().weight) == len(vocabulary.pieces) < 25
    assert compact.state_dict().keys() == whole.state_dict().keys()
    torch.testing.assert_close(trained(compact, batch), expected, rtol=1e-5, atol=1e-6)
    restore_vocabulary(compact, vocabulary, decay=(1 - 0.01 * 0.5) ** 2)
    torch.testing.assert_close(dict(compact.named_parameters()), dict(whole.named_parameters()), rtol=1e-5, atol=2e-6)
    assert compact.get_input_embeddings() is vocabulary.table


def test_a_piece_of_no_row_is_an_error_not_another_piece() -> None:
    model = encoder("roberta")
    compact_vocabulary(model, [tokens_of(padded_batch(model), 1)])
    with pytest.raises(IndexError):
        model(input_ids=torch.tensor([[7, 59]]))


def test_a_table_that_is_no_plain_one_stays_whole_and_says_why() -> None:
    tied, scaled, unknown = encoder("bert"), encoder("bert"), encoder("bert")
    tied.head = nn.Linear(16, 60)
    tied.head.weight = tied.get_input_embeddings().weight
    reason = why_whole_vocabulary(tied)
    assert reason and "read at other places too: bert.embeddings.word_embeddings.weight, head.weight" in reason
    scaled.set_input_embeddings(type("Scaled", (nn.Embedding,), {})(60, 16))
    assert why_whole_vocabulary(scaled) == "its word pieces are embedded by more than a table of rows (Scaled)"

    def missing() -> nn.Module:
        raise NotImplementedError

    unknown.get_input_embeddings = missing
    assert why_whole_vocabulary(unknown) == "transformers does not say which module embeds its word pieces"
