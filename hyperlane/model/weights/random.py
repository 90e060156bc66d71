"""Seeded random tensors in the shapes of a model: for tests, and to measure speed without a download."""

import hashlib
import math
from collections.abc import Mapping

import torch


class Random:
    """Draws each tensor from its own generator, so that the order of reading does not matter."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], seed: int) -> None:
        self._shapes, self._seed = shapes, seed

    def read(self, name: str) -> torch.Tensor:
        shape = self._shapes[name]
        key = hashlib.sha256(f"{self._seed}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "little") >> 1)
        if len(shape) > 1:  # keeps the size of what it multiplies
            return torch.randn(shape, generator=generator) / math.sqrt(shape[-1])
        noise = 0.1 * torch.randn(shape, generator=generator)
        return 1 + noise if name.endswith("norm.weight") else noise
