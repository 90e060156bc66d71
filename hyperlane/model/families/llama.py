"""Llama 1 to 3 and what shares their classes (SmolLM2, TinyLlama): the common case."""

from hyperlane.model.families import Family

FAMILY = Family(rotates_halves=True)
