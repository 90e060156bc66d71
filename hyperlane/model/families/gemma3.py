"""Gemma 3 as published: a vision and a language model in one checkpoint, of which the latter is used."""

from hyperlane.model.families import Family

FAMILY = Family(
    rotates_halves=True, text_field="text_config", foreign_prefixes=("language_model.", "model.language_model.")
)
