"""How weights are stored: one file a choice, each a dataclass with the methods of `Quantization`.

Matrices go in blocks of 32 values with codes of 4 or 8 bits, as `reference` lays down, or stay as they are.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from hyperlane.quantization.reference import BLOCK, TILE, Blocks

Role = Literal["matmul", "gather"]  # what the graph does with a weight: multiply by it, or look its rows up


@dataclass(frozen=True, slots=True, kw_only=True)
class Array:
    """One array of a weight file."""

    suffix: str  # of its name in the graph
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """Blocks with codes of `bits`; `minima`: with a minimum a block, else symmetric."""

    bits: int
    minima: bool

    def arrays(self, shapes_NK: tuple[tuple[int, int], ...]) -> tuple[Array, ...]:
        """What weights of the same width become together, as `reference.tiled` lays each of them out."""
        tiles, blocks = sum(-(-N // TILE) for N, _ in shapes_NK), -(-shapes_NK[0][1] // BLOCK)
        codes = Array(suffix=".codes", shape=(tiles, blocks, self.bits, TILE, 4), dtype=np.dtype(np.uint8))
        names = (".scales", ".minima") if self.minima else (".scales",)
        halves = (Array(suffix=name, shape=(tiles, blocks, TILE), dtype=np.dtype(np.float16)) for name in names)
        return (codes, *halves)


class Parameter(Protocol):
    """A matrix of a checkpoint."""

    def values(self) -> NDArray[np.float32]:
        """[N, K]: N outputs or vocabulary rows, K inputs or hidden size."""
        ...

    def blocks(self) -> Blocks | None:
        """The blocks that the checkpoint itself stores, where they are some that we can store as they are."""
        ...


class Quantization(Protocol):
    """A choice of how to store matrices."""

    @property
    def name(self) -> str:
        """Names the choice and its options; part of the store's keys."""
        ...

    def form(self, role: Role, source: Form | None) -> Form | None:
        """How a matrix is stored, given how the checkpoint does; None: as it is, in the activations' type."""
        ...

    def pack(self, form: Form, parameter: Parameter) -> Blocks:
        """The matrix in that form."""
        ...
