"""What a shard's graph takes and gives, read once; and the memory that it is bound to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
}
_CANDIDATES = ("candidate_ids", "candidate_logits", "logsumexp")


@dataclass(frozen=True, slots=True)
class Value:
    """An input or output of a graph; dimensions that a step decides are names."""

    name: str
    type: type[np.generic]
    shape: tuple[Any, ...]

    @property
    def hidden(self) -> "tuple[int, np.dtype[Any]]":
        """Width and type, of hidden states."""
        return self.shape[-1], np.dtype(self.type)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """`rows` are token ids [B, S] in the first shard, else hidden states [B, S, D]."""

    rows: Value
    outputs: Mapping[str, Value]
    caches: tuple[Value, ...]  # each layer's keys and values
    is_first: bool
    is_last: bool
    is_fused: bool  # its attention is one operator of ONNX Runtime, which wants lengths; else pieces, or our own
    is_ragged: bool  # its attention takes rows of any slots; else a batch of slots, of one length

    @classmethod
    def of(cls, session: Any) -> Self:
        """Of an onnxruntime session."""
        inputs = {value.name: value for value in session.get_inputs()}
        is_first = "input_ids" in inputs
        return cls(
            rows=_value(inputs["input_ids" if is_first else "hidden_in"]),
            outputs={value.name: _value(value) for value in session.get_outputs()},
            caches=tuple(_value(value) for name, value in inputs.items() if name.startswith("past_")),
            is_first=is_first,
            is_last="output_rows" in inputs,
            is_fused="seqlens_k" in inputs,
            is_ragged="row_slots" in inputs,
        )

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Of one input row: () for a token id."""
        return self.rows.shape[2:]

    @property
    def hidden_in(self) -> "tuple[int, np.dtype[Any]] | None":
        """Width and type of the hidden states that come in; None where token ids do."""
        return None if self.is_first else self.rows.hidden

    @property
    def hidden_out(self) -> "tuple[int, np.dtype[Any]] | None":
        return None if self.is_last else self.outputs["hidden_out"].hidden

    def wanted(self, want_logits: bool) -> tuple[str, ...]:
        """The outputs of a step."""
        if not self.is_last:
            return ("hidden_out",)
        return ("logits",) if want_logits else _CANDIDATES


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Keys or values of a layer, of all slots."""

    name: str  # of the graph's input
    type: type[np.generic]
    shape: tuple[int, int, int]  # of one slot: heads, positions, head_dim or bytes a position
    address: int  # of slot 0
    slot_bytes: int
    memory: Any  # keeps the address valid


def bind_caches(binding: Any, caches: "tuple[Cache, ...]", place: tuple[str, int], first: int, slots: int) -> None:
    """`slots` slots from `first`, updated in place."""
    for cache in caches:
        memory = (*place, cache.type, (slots, *cache.shape), cache.address + first * cache.slot_bytes)
        binding.bind_input(cache.name, *memory)
        binding.bind_output(cache.name.replace("past_", "present_"), *memory)


def _value(value: Any) -> Value:
    return Value(value.name, TYPES[value.type], tuple(value.shape))
