"""List the families of transformers' encoders whose parts have known names, with what is known of each one's last layer.

A model of any other family can be trained too, without the shortcuts that need these names. Nothing heavy is imported here: `--dry-run`
reads the table with no more than a model's config.json.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from kdsweep.analysis.formats import enumerated
from kdsweep.system.libraries import lacks

if TYPE_CHECKING:
    from torch import nn

RELATIONS = "relations"
"""The name of this output of a model: the queries, keys and values of all tokens in its last layer."""

Layer = Literal["bert", "distilbert", "mpnet", "deberta-v2", "modernbert"]
"""Layers whose first token can be computed alone: `first_token.py` has each one's mathematics."""


class LayerNames(NamedTuple):
    """Names the modules of a layer that have weights, each relative to the layer."""

    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    inner: str
    outer: str
    output_norm: str


BERT_NAMES = LayerNames(
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    inner="intermediate.dense",
    outer="output.dense",
    output_norm="output.LayerNorm",
)
DISTILBERT_NAMES = LayerNames(
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attention_output="attention.out_lin",
    attention_norm="sa_layer_norm",
    inner="ffn.lin1",
    outer="ffn.lin2",
    output_norm="output_layer_norm",
)


@dataclass(frozen=True, kw_only=True)
class Family:
    """Describes one of transformers' encoders as a sequence classifier."""

    model_type: str
    """transformers' name of the family."""
    classifier: str
    """The name of its class in transformers."""
    embeddings: str
    layers: str
    """Paths of the embeddings and of the list of layers in the classifier."""
    names: LayerNames | None = None
    """None where queries, keys and values are not modules of their own, or a layer has parts that these names lack."""
    first_token: Layer | None = None
    """The layer whose mathematics is the last layer's, where the classifier reads its first token alone."""
    why_not: str = ""
    """Why the last layer computes every token, where `first_token` is None."""
    one_mask: bool = False
    """Whether all layers take one mask as torch's fused attention has it, bool [B, 1, 1, L]."""

    def classifier_class(self) -> type[nn.Module]:
        """Return the classifier's class, which transformers imports on first use."""
        import transformers

        found: type[nn.Module] = getattr(transformers, self.classifier)
        return found

    def last_layer(self, model: nn.Module) -> nn.Module:
        """Return the last layer of `model`, a classifier of this family. Raises LibraryError where transformers names the layer's parts otherwise."""
        try:
            *_, last = model.get_submodule(self.layers).children()
            for name in self.names or ():
                last.get_submodule(name)
        except AttributeError as error:
            part = f"{self.classifier}'s {self.layers} with {', '.join(self.names or ())}"
            raise lacks("transformers", part, "a last layer that computes its first token alone") from error
        return last

    def why_every_token(self, config: Any) -> str | None:
        """Return why the classifier of this configuration needs every token of its last layer; None where the first is enough."""
        if self.first_token is None:
            return self.why_not
        if self.first_token == "modernbert" and (pooling := getattr(config, "classifier_pooling", "cls")) != "cls":
            return f"its classifier reads every token (classifier_pooling: {pooling})"
        if (
            self.first_token == "deberta-v2"
            and getattr(config, "num_hidden_layers", 0) == 1
            and getattr(config, "conv_kernel_size", 0)
        ):
            return "a convolution reads every token of its only layer"
        return None


BERT = Family(
    model_type="bert",
    classifier="BertForSequenceClassification",
    embeddings="bert.embeddings",
    layers="bert.encoder.layer",
    names=BERT_NAMES,
    first_token="bert",
    one_mask=True,
)
DISTILBERT = Family(
    model_type="distilbert",
    classifier="DistilBertForSequenceClassification",
    embeddings="distilbert.embeddings",
    layers="distilbert.transformer.layer",
    names=DISTILBERT_NAMES,
    first_token="distilbert",
    one_mask=True,
)


def _like_bert(model_type: str, classifier: str, body: str) -> Family:
    """Describe a family with BERT's layers under its own names."""
    return Family(
        model_type=model_type,
        classifier=classifier,
        embeddings=f"{body}.embeddings",
        layers=f"{body}.encoder.layer",
        names=BERT_NAMES,
        first_token="bert",
        one_mask=True,
    )


FAMILIES = (
    BERT,
    DISTILBERT,
    _like_bert("roberta", "RobertaForSequenceClassification", "roberta"),
    _like_bert("xlm-roberta", "XLMRobertaForSequenceClassification", "roberta"),
    _like_bert("camembert", "CamembertForSequenceClassification", "roberta"),
    _like_bert("electra", "ElectraForSequenceClassification", "electra"),
    _like_bert("ernie", "ErnieForSequenceClassification", "ernie"),
    Family(
        model_type="mpnet",
        classifier="MPNetForSequenceClassification",
        embeddings="mpnet.embeddings",
        layers="mpnet.encoder.layer",
        names=LayerNames(
            query="attention.attn.q",
            key="attention.attn.k",
            value="attention.attn.v",
            attention_output="attention.attn.o",
            attention_norm="attention.LayerNorm",
            inner="intermediate.dense",
            outer="output.dense",
            output_norm="output.LayerNorm",
        ),
        first_token="mpnet",
    ),
    Family(
        model_type="deberta-v2",
        classifier="DebertaV2ForSequenceClassification",
        embeddings="deberta.embeddings",
        layers="deberta.encoder.layer",
        names=BERT_NAMES._replace(
            query="attention.self.query_proj", key="attention.self.key_proj", value="attention.self.value_proj"
        ),
        first_token="deberta-v2",
    ),
    Family(
        model_type="modernbert",
        classifier="ModernBertForSequenceClassification",
        embeddings="model.embeddings",
        layers="model.layers",
        first_token="modernbert",
    ),
    Family(
        model_type="convbert",
        classifier="ConvBertForSequenceClassification",
        embeddings="convbert.embeddings",
        layers="convbert.encoder.layer",
        why_not="its layers convolve over neighbouring tokens",
    ),
    Family(
        model_type="mobilebert",
        classifier="MobileBertForSequenceClassification",
        embeddings="mobilebert.embeddings",
        layers="mobilebert.encoder.layer",
        why_not="its layers have bottlenecks, whose mathematics kdsweep does not know",
    ),
    Family(
        model_type="xlnet",
        classifier="XLNetForSequenceClassification",
        embeddings="transformer.word_embedding",
        layers="transformer.layer",
        why_not="its classifier reads the last token",
    ),
)
KNOWN_TYPES = tuple(family.model_type for family in FAMILIES if family.names is not None)
"""transformers' names of the families whose queries, keys and values have names."""
NOT_CUT = {
    "albert": "whose layers share one set of weights, so that fewer of them are not smaller",
    "funnel": "whose layers lie in blocks that shorten the text",
}
"""Why no student can have fewer layers than a model of these families, by transformers' name."""


def family_named(model_type: str) -> Family | None:
    """Return the family of transformers' name `model_type`; None for an unknown one."""
    return next((family for family in FAMILIES if family.model_type == model_type), None)


def why_every_token(family: Family | None, config: Any, outputs: Collection[str] = ()) -> str | None:
    """Return why the last layer of a classifier computes every token, where a loss reads `outputs` besides logits; None where it computes
    the first alone."""
    if others := sorted({*outputs} - {RELATIONS}):
        return f"the loss reads its {enumerated([name.replace('_', ' ') for name in others])}"
    if getattr(config, "is_decoder", False):
        return "a decoder classifies by its last token"
    if family is None:
        return f"kdsweep does not know the layers of {config.model_type}"
    return family.why_every_token(config)


def family_of(model: nn.Module) -> Family | None:
    """Return the family of a classifier; None for an unknown one, and for a decoder, which classifies by its last token."""
    if getattr(model.config, "is_decoder", False):
        return None
    classes = {base.__name__ for base in type(model).__mro__}
    return next((family for family in FAMILIES if family.classifier in classes), None)
