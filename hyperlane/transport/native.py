"""The extension module, where it was built: the one place that decides whether codecs run native."""

from functools import cache
from importlib import import_module
from types import ModuleType


@cache
def extension() -> ModuleType | None:
    """`hyperlane._native`, or None where the package was installed without a compiler."""
    try:
        return import_module("hyperlane._native")
    except ImportError:
        return None


def ask_for_short_slices() -> None:
    """Let the calling thread take its core at once when it wakes, from threads that ask for nothing (Linux 6.12)."""
    module = extension()
    if module is not None:
        module.ask_for_short_slices()
