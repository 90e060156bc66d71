"""Hyperlane: the machines of a LAN as one pipeline for a language model."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("hyperlane")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0+unknown"

PROTOCOL_VERSION = 1
"""What coordinator and workers must agree on: frames, control messages and the shard contract."""
