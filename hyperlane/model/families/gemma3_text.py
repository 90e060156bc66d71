"""Gemma 3, text only: two kinds of layer with rotary frequencies of their own, norms of queries and keys."""

from hyperlane.model.families import Family

FAMILY = Family(rotates_halves=True)
