"""Mistral: Llama with a sliding window, which HF passes to the attention function."""

from hyperlane.model.families import Family

FAMILY = Family(rotates_halves=True)
