"""Read `student_layers`: which of a model's layers a student copies, as a count, a list, or a word with a count."""

import re

from kdsweep.config.roles import Pattern

Layers = int | tuple[int, ...] | str
"""A count (spread), the layers themselves, or `first:3`, `spread:3`, `last:3`."""

WORDS = Pattern(
    r"(first|spread|last):[1-9]\d*", "is a count, a list of layers, or first:N, spread:N or last:N, N from 1"
)


def place_and_count(layers: int | str) -> tuple[str, int]:
    """Return where in the model the layers lie (`first`, `spread` or `last`), and how many there are; a count alone is spread."""
    if isinstance(layers, int):
        return "spread", layers
    place, _, count = layers.partition(":")
    return place, int(count)


def one_spelling(layers: Layers) -> Layers:
    """Return the layers as every config spells them: `spread:3` is the count 3."""
    spread = re.fullmatch(r"spread:([1-9]\d*)", layers) if isinstance(layers, str) else None
    return int(spread[1]) if spread else layers


def layers_text(layers: Layers) -> str:
    """Return the layers in a few words: `3 layers`, `first 3 layers`, `layers 0,2,5`."""
    if isinstance(layers, tuple):
        return f"layers {','.join(map(str, layers))}"
    return f"{layers} layers" if isinstance(layers, int) else f"{' '.join(map(str, place_and_count(layers)))} layers"
