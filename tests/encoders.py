"""Tiny random classifiers of each family, made from their configuration alone."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

_BERT = {
    "vocab_size": 40,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "initializer_range": 0.2,
}
_DEBERTA = {
    **_BERT,
    "type_vocab_size": 0,
    "relative_attention": True,
    "position_buckets": 4,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
}
SHAPES: dict[str, dict[str, Any]] = {
    "bert": _BERT,
    "distilbert": {
        "vocab_size": 40,
        "dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 48,
        "initializer_range": 0.2,
    },
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "ernie": _BERT,
    "electra": {**_BERT, "embedding_size": 16},
    "mpnet": _BERT,
    "deberta-v2": _DEBERTA,
    "modernbert": {
        **_BERT,
        "num_hidden_layers": 3,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
        "local_attention": 4,
        "classifier_pooling": "cls",
    },
    "convbert": {**_BERT, "embedding_size": 16, "conv_kernel_size": 3},
    "mobilebert": {
        **_BERT,
        "embedding_size": 16,
        "intra_bottleneck_size": 16,
        "num_feedforward_networks": 2,
        "true_hidden_size": 16,
    },
    "xlnet": {"vocab_size": 40, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48, "initializer_range": 0.2},
    "albert": {**_BERT, "embedding_size": 16, "num_attention_heads": 4},
    "funnel": {
        "vocab_size": 40,
        "d_model": 32,
        "n_head": 4,
        "d_head": 8,
        "d_inner": 48,
        "block_sizes": [1, 1],
        "pad_token_id": 0,
    },
}
"""By transformers' name of a family, the configuration of a tiny model."""


def encoder(model_type: str, **changes: Any) -> Any:
    """A classifier of two classes of this family, with random weights, the same in every call."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**SHAPES[model_type], "num_labels": 2, **changes})
    return AutoModelForSequenceClassification.from_config(config)


def padded_batch(model: Any) -> dict[str, torch.Tensor]:
    """Three rows of 9, 6 and 7 tokens for `model`, with its padding."""
    mask = (torch.arange(9)[None] < torch.tensor([[9], [6], [7]])).long()
    ids = torch.randint(5, 40, (3, 9), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids.masked_fill(mask == 0, model.config.pad_token_id), "attention_mask": mask}
