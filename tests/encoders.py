"""Tiny random encoders of many families, each with a tokenizer of whole words whose special tokens stand where the family wants them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tiny import BAD, GOOD, NOUNS, PIECES
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

PLAIN = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
NARROW = {**PLAIN, "embedding_size": 16}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": PLAIN,
    "distilbert": {"dim": 16, "hidden_dim": 32, "n_heads": 2},
    "roberta": PLAIN,
    "xlm-roberta": PLAIN,
    "camembert": PLAIN,
    "mpnet": PLAIN,
    "ernie": PLAIN,
    "electra": NARROW,
    "albert": NARROW,
    "convbert": NARROW,
    "mobilebert": {**PLAIN, "embedding_size": 8, "intra_bottleneck_size": 8, "true_hidden_size": 8},
    "squeezebert": NARROW,
    "deberta": PLAIN,
    "deberta-v2": {**PLAIN, "relative_attention": True, "position_buckets": 8, "share_att_key": True}
    | {"norm_rel_ebd": "layer_norm", "pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
    "modernbert": {**PLAIN, "pad_token_id": 1, "local_attention": 4},
    "longformer": {**PLAIN, "attention_window": 8},
    "funnel": {
        "architectures": ["FunnelModel"],
        "d_model": 16,
        "n_head": 2,
        "d_head": 8,
        "d_inner": 32,
        "num_decoder_layers": 1,
    },
    "xlnet": {"d_model": 16, "n_head": 2, "d_inner": 32},
}
"""What each family's config says beside its pieces and layers, by transformers' name of the family."""
VOCABULARY = 60


def encoder_config(family: str, *, layers: int, **changes: Any) -> Any:
    """The configuration of a tiny encoder."""
    depth = {"block_sizes": [layers]} if family == "funnel" else {"num_hidden_layers": layers}
    return CONFIG_MAPPING[family](**{"vocab_size": VOCABULARY, **FAMILIES[family], **depth, **changes})


def write_encoder(
    folder: Path, family: str, *, layers: int = 1, label_names: Sequence[str] = (), **changes: Any
) -> Path:
    """A random body of a family or, with `label_names`, a classifier of these classes, with its tokenizer; the folder."""
    names: dict[str, Any] = {}
    if label_names:
        names = {"id2label": dict(enumerate(label_names)), "label2id": {n: i for i, n in enumerate(label_names)}}
    config = encoder_config(family, layers=layers, **names, **changes)
    _tokenizer(family, config.pad_token_id or 0).save_pretrained(folder)
    torch.manual_seed(0)
    (AutoModelForSequenceClassification if label_names else AutoModel).from_config(config).save_pretrained(folder)
    return folder


def _tokenizer(family: str, pad_id: int) -> PreTrainedTokenizerFast:
    special = ["<s>", "</s>", "<unk>", "<mask>", "<cls>"]
    special.insert(pad_id, "<pad>")
    words = [word for word in PIECES.split() if word.isalpha()]
    vocabulary = {word: index for index, word in enumerate([*special, *words, *NOUNS, *GOOD, *BAD])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    form = "$A </s> <cls>" if family == "xlnet" else "<cls> $A </s>"
    ends = [(name, vocabulary[name]) for name in ("<cls>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single=form, pair=f"{form} $B:1", special_tokens=ends)
    names = {f"{name}_token": f"<{name}>" for name in ("pad", "unk", "cls", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, sep_token="</s>", **names)


def encoder(family: str, *, layers: int = 2, **changes: Any) -> Any:
    """A classifier of two classes without a tokenizer; weights wider than usual, so that what they compute differs visibly."""
    torch.manual_seed(0)
    config = encoder_config(family, layers=layers, **{"initializer_range": 0.2, "num_labels": 2, **changes})
    return AutoModelForSequenceClassification.from_config(config)


def padded_batch(model: Any) -> dict[str, torch.Tensor]:
    """Three rows of 9, 6 and 7 random tokens for `model`, with its own padding."""
    mask = (torch.arange(9)[None] < torch.tensor([[9], [6], [7]])).long()
    ids = torch.randint(6, 50, (3, 9), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids.masked_fill(mask == 0, model.config.pad_token_id or 0), "attention_mask": mask}
