"""Where a model's tensors come from: one file a format, read one tensor at a time."""

from typing import Protocol

import torch

from hyperlane.quantization import Form
from hyperlane.quantization.reference import Blocks


class Weights(Protocol):
    """The tensors of one checkpoint, by the parameter names that HF's model classes use."""

    def read(self, name: str) -> torch.Tensor:
        """The tensor called `name`, in the type it is stored in; KeyError if there is none."""
        ...


class WeightsInBlocks(Protocol):
    """A checkpoint that stores matrices in blocks of its own."""

    def form(self, name: str) -> Form | None:
        """How a matrix is stored, if it is in blocks that we can store as they are; KeyError as above."""
        ...

    def blocks(self, name: str) -> Blocks | None:
        """These blocks: the same values as `read` gives, to the bit."""
        ...
