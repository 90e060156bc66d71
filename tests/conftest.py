"""Fixtures that several packages use."""

from hypothesis import settings

from tests.fixtures_model import smollm2, tiny, tiny_int8

__all__ = ["smollm2", "tiny", "tiny_int8"]


def pytest_configure() -> None:
    """Property tests draw the same examples each time, and take as long as a busy machine needs."""
    settings.register_profile("reproducible", derandomize=True, deadline=None)
    settings.load_profile("reproducible")
