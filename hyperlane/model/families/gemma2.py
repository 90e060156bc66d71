"""Gemma 2: soft-capped attention and logits, a window in every other layer, scaled embeddings."""

from hyperlane.model.families import Family

FAMILY = Family(rotates_halves=True)
