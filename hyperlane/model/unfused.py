"""Attention in pieces of ONNX's own operators, which ONNX Runtime has for GPUs in FP32 too (its fused one is FP16).

It reads the whole cache at every step, so it is for exactness, not for speed.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

_LOWEST = float(np.finfo(np.float32).min)


class Writer(Protocol):
    """Appends nodes to a graph."""

    def add(self, kind: str, inputs: list[str], **attributes: object) -> str:
        """A node; the name of what it gives."""

    def whole(self, *values: int) -> str:
        """A constant of integers, [len(values)]."""

    def number(self, value: float) -> str:
        """A constant of the activations' type, of no dimension."""

    def name(self, value: str, output: str) -> None:
        """`output` is the value."""


def attention(
    writer: Writer,
    rows: tuple[str, str, str],
    caches: tuple[str, str],
    outputs: tuple[str, str, str],
    numbers: Mapping[str, float],
    head_dim: int,
) -> None:
    """Queries, keys and values [B, S, heads * head_dim], rotated; caches [B, heads, L, head_dim], updated where
    `position_ids` [B, S] says. Each row sees the positions up to its own, or the last `window` of them.
    """
    heads, kv_heads, window = (int(numbers[name]) for name in ("heads", "kv_heads", "window"))
    group = heads // kv_heads
    keys, values = (
        _stored(writer, row, cache, kv_heads, head_dim) for row, cache in zip(rows[1:], caches, strict=True)
    )
    writer.name(keys, outputs[1])
    writer.name(values, outputs[2])
    cut = writer.add("Reshape", [rows[0], writer.whole(0, 0, kv_heads, group, head_dim)])
    queries = writer.add("Transpose", [cut], perm=[0, 2, 3, 1, 4])
    queries = writer.add("Reshape", [queries, writer.whole(0, 0, -1, head_dim)])  # [B, kv_heads, group * S, head_dim]
    turned = writer.add("Transpose", [keys], perm=[0, 1, 3, 2])
    scores = writer.add("Mul", [writer.add("MatMul", [queries, turned]), writer.number(numbers["scale"])])
    if numbers["softcap"]:
        cap = writer.number(numbers["softcap"])
        scores = writer.add("Mul", [writer.add("Tanh", [writer.add("Div", [scores, cap])]), cap])
    seen = _seen(writer, caches[0], group, window)
    shares = writer.add("Softmax", [writer.add("Where", [seen, scores, writer.number(_LOWEST)])], axis=-1)
    found = writer.add("MatMul", [shares, values])
    found = writer.add("Reshape", [found, writer.whole(0, 0, group, -1, head_dim)])
    found = writer.add("Transpose", [found], perm=[0, 3, 1, 2, 4])
    writer.name(writer.add("Reshape", [found, writer.whole(0, 0, heads * head_dim)]), outputs[0])


def _stored(writer: Writer, rows: str, cache: str, heads: int, head_dim: int) -> str:
    """The cache with rows at their positions."""
    cut = writer.add("Reshape", [rows, writer.whole(0, 0, heads, head_dim)])
    cut = writer.add("Transpose", [cut], perm=[0, 2, 1, 3])
    places = writer.add("Unsqueeze", ["position_ids", writer.whole(1, 3)])
    places = writer.add("Expand", [places, writer.add("Shape", [cut])])
    return writer.add("ScatterElements", [cache, places, cut], axis=2)


def _seen(writer: Writer, cache: str, group: int, window: int) -> str:
    """Which positions of the cache each row sees: [B, 1, group * S, L]."""
    length = writer.add("Squeeze", [writer.add("Shape", [cache], start=2, end=3)])
    zero, one = (writer.add("Squeeze", [writer.whole(value)]) for value in (0, 1))
    everywhere = writer.add("Range", [zero, length, one])
    own = "position_ids"
    if group > 1:
        own = writer.add("Concat", [own] * group, axis=1)
    own = writer.add("Unsqueeze", [own, writer.whole(1, 3)])
    seen = writer.add("LessOrEqual", [everywhere, own])
    if window:
        least = writer.add("Sub", [own, writer.whole(window)])
        seen = writer.add("And", [seen, writer.add("Greater", [everywhere, least])])
    return seen
