"""What both ends of a link know of its hidden states: calibrated once for a boundary, then frozen.

Bytes, little-endian: b"HYT1", width u32, median RMS f32, mean f16[width], scale f16[width], order u32[width],
bits u8[blocks]. Their SHA-256 is the tables' digest; frames carry its first 8 bytes.
"""

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hyperlane.errors import TransportError
from hyperlane.transport.codec.rotation import blocks

MAX_BITS = 6
LARGEST_RMS = 1e30
_MAGIC = b"HYT1"
_HEADER = struct.Struct("<4sIf")


@dataclass(frozen=True)
class Tables:
    """Statistics of one boundary, per channel of x / rms(x). TransportError where they are inconsistent."""

    median_rms: float  # of the calibration rows; FP32
    mean_D: NDArray[np.float16]
    scale_D: NDArray[np.float16]  # square root of the standard deviation, above 0
    order_D: NDArray[np.uint32]  # channels by falling deviation
    bits_B: NDArray[np.uint8]  # of each block of sorted channels, 0 to 6

    def __post_init__(self) -> None:
        width = len(self.mean_D)
        sound = (
            width > 0
            and len(self.scale_D) == len(self.order_D) == width
            and len(self.bits_B) == len(blocks(width))
            and 0 < self.median_rms < LARGEST_RMS
            and bool(np.isfinite(self.mean_D).all() and np.isfinite(self.scale_D).all())
            and bool((self.scale_D > 0).all() and (self.bits_B <= MAX_BITS).all())
            and bool((np.sort(self.order_D) == np.arange(width)).all())
        )
        if not sound:
            raise TransportError(f"codec tables of width {width} are inconsistent; calibrate the boundary again")

    @property
    def width(self) -> int:
        return len(self.mean_D)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the tables' bytes (hex)."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def id(self) -> bytes:
        """The 8 bytes that name these tables in a frame."""
        return bytes.fromhex(self.digest[:16])

    def to_bytes(self) -> bytes:
        columns = (
            self.mean_D.astype("<f2"),
            self.scale_D.astype("<f2"),
            self.order_D.astype("<u4"),
            self.bits_B,
        )
        return _HEADER.pack(_MAGIC, self.width, self.median_rms) + b"".join(c.tobytes() for c in columns)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Tables":
        """Read `to_bytes` back; TransportError where `data` is not exactly one set of tables."""
        magic, width, median_rms = _HEADER.unpack_from(data) if len(data) >= _HEADER.size else (b"", 0, 0.0)
        if magic != _MAGIC or len(data) < _HEADER.size + 8 * width:
            raise TransportError(f"{len(data)} bytes are no codec tables; calibrate the boundary again")
        columns = np.frombuffer(data, np.uint8, offset=_HEADER.size)
        mean, scale, order, bits = np.split(columns, [2 * width, 4 * width, 8 * width])
        return cls(median_rms, mean.view("<f2"), scale.view("<f2"), order.view("<u4"), bits)
