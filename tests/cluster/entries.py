"""mDNS entries for tests."""

from typing import Any

from hyperlane import PROTOCOL_VERSION
from hyperlane.cluster.announce import Entry


def make_entry(name: str = "w", **changes: Any) -> Entry:
    plain: dict[str, Any] = {
        "cluster": "c",
        "identity": f"{name}#01",
        "version": PROTOCOL_VERSION,
        "device": "cpu",
        "memory_total_bytes": 1000,
        "memory_free_bytes": 600,
        "control_port": 7070,
        "data_port": 7071,
        "hosts": ("127.0.0.1",),
    }
    return Entry(name=name, **{**plain, **changes})
