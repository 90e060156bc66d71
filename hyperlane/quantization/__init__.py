"""How weights are stored: one file a choice, each a dataclass with the methods of `Quantization`."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Role = Literal["matmul", "gather"]  # what the graph does with a weight: multiply by it, or look its rows up


@dataclass(frozen=True, slots=True, kw_only=True)
class Array:
    """One stored array of a weight."""

    suffix: str  # of its name in the graph
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """The ONNX operator that reads a stored weight."""

    name: str
    domain: str
    attributes: dict[str, int]


class Quantization(Protocol):
    """A form of storing rank-2 weights `weight_NK`: N outputs or vocabulary rows, K inputs or hidden size."""

    @property
    def name(self) -> str:
        """Names the form and its options; part of the store's keys."""
        ...

    def layout(self, role: Role, shape_NK: tuple[int, int], dtype: np.dtype[Any]) -> tuple[Array, ...]:
        """The arrays that a weight of this shape becomes; `dtype` is the activations' type."""
        ...

    def pack(self, role: Role, weight_NK: NDArray[np.floating[Any]]) -> tuple[NDArray[Any], ...]:
        """The arrays themselves, as `layout` announces them."""
        ...

    def operator(self, role: Role, shape_NK: tuple[int, int]) -> Operator:
        """What replaces MatMul or Gather. The stored arrays follow the data, or enclose the indices."""
        ...
