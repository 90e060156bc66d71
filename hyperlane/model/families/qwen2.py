"""Qwen2 and Qwen2.5: Llama with biases on queries, keys and values; some layers may have a window."""

from hyperlane.model.families import Family

FAMILY = Family(rotates_halves=True)
