"""Tensors from PyTorch's *.bin files, memory-mapped and without running any pickled code."""

from pathlib import Path

import torch


class Pickled:
    """Reads the tensors of some *.bin files; their pages are loaded as they are used."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self._tensors: dict[str, torch.Tensor] = {}
        for path in paths:
            self._tensors |= torch.load(path, map_location="cpu", mmap=True, weights_only=True)

    def read(self, name: str) -> torch.Tensor:
        return self._tensors[name]
