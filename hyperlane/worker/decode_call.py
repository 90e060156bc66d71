"""Where a decode step's call has its inputs and outputs, for whoever writes and reads them without Python."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeCall:
    """A call of one row a slot, each with an output, in memory of its own."""

    run: Callable[[], None]  # computes; raises HyperlaneError
    rows: NDArray[Any]  # token ids int64 [R] or hidden states [R, D]
    positions: NDArray[np.int64]  # [R]
    slots: NDArray[np.int64]  # [R]
    outputs: tuple[NDArray[Any], ...]  # hidden states [R, D]; or ids int64 [R, K], logits [R, K] and logsumexp [R]
    live: NDArray[np.int64]  # [slots] how many positions each slot holds; whoever runs a step writes what it then holds
    context: int  # positions that a slot may hold
