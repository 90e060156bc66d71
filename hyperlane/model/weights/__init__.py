"""Where a model's tensors come from: one file a format, read one tensor at a time."""

from typing import Protocol

import torch


class Weights(Protocol):
    """The tensors of one checkpoint, by the parameter names that HF's model classes use."""

    def read(self, name: str) -> torch.Tensor:
        """The tensor called `name`, in the type it is stored in; KeyError if there is none."""
        ...
