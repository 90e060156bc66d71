"""What a codec is: how the hidden rows of a frame become bytes."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Buffer = bytes | memoryview | NDArray[np.uint8]


class Codec(Protocol):
    """One file of this folder each. An instance may carry tables, and is safe to use from several threads.

    Rows are float32 or float16 of shape [R, D], and may be strided; `positions_R` is each row's place in its
    sequence.
    """

    @property
    def name(self) -> str:
        """As in conf/transport/codec."""

    @property
    def id(self) -> int:
        """As in a frame's header."""

    def max_bytes(self, rows: int, width: int) -> int:
        """The most that `encode` gives for such rows."""

    def encode(self, hidden_RD: NDArray[Any], positions_R: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """The payload, which may be a view of `hidden_RD`. NaN and Inf stay in their row."""

    def decode(self, payload: Buffer, positions_R: NDArray[np.uint32], out_RD: NDArray[Any]) -> None:
        """Write the rows to `out_RD`. Raises TransportError for a payload that is not of such rows."""
