"""Hyperlane: the machines of a LAN as one pipeline for a language model."""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hyperlane.api import AutoDistributedModel

__all__ = ["PROTOCOL_VERSION", "AutoDistributedModel", "__version__"]

try:
    __version__ = version("hyperlane")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0+unknown"

PROTOCOL_VERSION = 3
"""What coordinator and workers must agree on: frames, control messages and the shard contract."""


def __getattr__(name: str) -> object:
    if name == "AutoDistributedModel":  # on first use: a worker imports this package too, and has no torch
        from hyperlane.api import AutoDistributedModel

        return AutoDistributedModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
