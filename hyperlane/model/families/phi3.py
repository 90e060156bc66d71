"""Phi-3: one projection for queries, keys and values, one for the MLP's two; a sliding window."""

from hyperlane.model.families import Family

FAMILY = Family(rotates_halves=True)
