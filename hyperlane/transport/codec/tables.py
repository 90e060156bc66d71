"""What both ends of a link know of its hidden states: calibrated once for a boundary, then frozen.

Bytes, little-endian: b"HYT2", width u32, tables u32, median RMS f32, loudness f32, mean f16[width],
scale f16[width], then of `int4`: step f16[width], order u32[width], shift u8[width], table u8[ceil(width / 32)],
frequency u8[tables, 32]. Their SHA-256 is the tables' digest; frames carry its first 8 bytes.
"""

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hyperlane.errors import TransportError
from hyperlane.transport.codec.scalar_tables import SYMBOLS, ScalarTables, vectors

LARGEST_RMS = 1e30
_MAGIC = b"HYT2"
_HEADER = struct.Struct("<4sIIff")


@dataclass(frozen=True)
class Tables:
    """Statistics of one boundary, per channel of x / rms(x). TransportError where they are inconsistent."""

    median_rms: float  # of the calibration rows; FP32
    mean_D: NDArray[np.float16]
    scale_D: NDArray[np.float16]  # square root of the standard deviation, above 0: of h4 and h8
    scalar: ScalarTables  # of int4

    def __post_init__(self) -> None:
        width = len(self.mean_D)
        sound = (
            0 < width < 2**16
            and len(self.scale_D) == self.scalar.width == width
            and 0 < self.median_rms < LARGEST_RMS
            and bool(np.isfinite(self.mean_D).all() and np.isfinite(self.scale_D).all())
            and bool((self.scale_D > 0).all())
            and self.scalar.sound()
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
        scalar = self.scalar
        columns = (
            *(column.astype("<f2") for column in (self.mean_D, self.scale_D, scalar.step_D)),
            scalar.order_D.astype("<u4"),
            *(scalar.shift_D, scalar.table_V, scalar.frequency_TK),
        )
        head = _HEADER.pack(_MAGIC, self.width, len(scalar.frequency_TK), self.median_rms, scalar.loudness)
        return head + b"".join(column.tobytes() for column in columns)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Tables":
        """Read `to_bytes` back; TransportError where `data` is not exactly one set of tables."""
        head = _HEADER.unpack_from(data) if len(data) >= _HEADER.size else (b"", 0, 0, 0.0, 0.0)
        magic, width, tables, median_rms, loudness = head
        sizes = [2 * width] * 3 + [4 * width, width, vectors(width), SYMBOLS * tables]
        if magic != _MAGIC or len(data) != _HEADER.size + sum(sizes):
            raise TransportError(f"{len(data)} bytes are no codec tables; calibrate the boundary again")
        columns = np.split(np.frombuffer(data, np.uint8, offset=_HEADER.size), np.cumsum(sizes)[:-1])
        mean, scale, step = (column.view("<f2") for column in columns[:3])
        frequency_TK = columns[6].reshape(tables, SYMBOLS)
        scalar = ScalarTables(loudness, step, columns[3].view("<u4"), columns[4], columns[5], frequency_TK)
        return cls(median_rms, mean, scale, scalar)
