"""Fixtures that several packages use."""

from tests.fixtures_model import smollm2, tiny

__all__ = ["smollm2", "tiny"]
