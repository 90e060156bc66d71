"""Qwen3: norms of queries and keys before the rotary embedding, a head size of its own."""

from hyperlane.model.families import Family

FAMILY = Family(rotates_halves=True)
