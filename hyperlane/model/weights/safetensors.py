"""Tensors from *.safetensors files, memory-mapped by the safetensors library."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open


class Safetensors:
    """Reads single tensors out of the files that hold them."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        """`files`: for each tensor name the file that holds it."""
        self._files = files

    @classmethod
    def of(cls, paths: tuple[Path, ...]) -> "Safetensors":
        """All tensors of some files; raises OSError or safetensors' own error on a damaged one."""
        files: dict[str, Path] = {}
        for path in paths:
            with safe_open(path, framework="pt") as file:
                files.update(dict.fromkeys(file.keys(), path))
        return cls(files)

    def read(self, name: str) -> torch.Tensor:
        with safe_open(self._files[name], framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(name)
        return tensor
