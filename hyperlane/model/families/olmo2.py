"""OLMo 2: norms behind attention and MLP instead of before them, and of whole queries and keys."""

from hyperlane.model.families import Family

FAMILY = Family(rotates_halves=True)
