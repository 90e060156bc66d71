"""Weights as they are, in the activations' own type."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.quantization import Array, Operator, Role


@dataclass(kw_only=True, slots=True)
class NoQuantization:
    """MatMul weights are stored transposed, [K, N], as ONNX multiplies by them; embeddings as they are."""

    @property
    def name(self) -> str:
        return "none"

    def layout(self, role: Role, shape_NK: tuple[int, int], dtype: np.dtype[Any]) -> tuple[Array, ...]:
        shape = shape_NK[::-1] if role == "matmul" else shape_NK
        return (Array(suffix="", shape=shape, dtype=dtype),)

    def pack(self, role: Role, weight_NK: NDArray[np.floating[Any]]) -> tuple[NDArray[Any], ...]:
        return (np.ascontiguousarray(weight_NK.T if role == "matmul" else weight_NK),)

    def operator(self, role: Role, shape_NK: tuple[int, int]) -> Operator:
        return Operator(name="MatMul" if role == "matmul" else "Gather", domain="", attributes={})
