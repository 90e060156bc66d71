"""Symmetric quantization in groups of 64 values: what codecs int8 and int4_plain share.

The arithmetic is FP32, each operation rounded to nearest even, no fused multiply-add; native code gives the same bits.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.errors import TransportError
from hyperlane.transport.codec.protocol import Buffer

GROUP = 64
_HALF_MAX = np.float32(65504)
_HALF_NAN = np.uint16(0x7E00).view(np.float16)


def group_count(width: int) -> int:
    """Groups in a row; the last one may be short."""
    return -(-width // GROUP)


def quantize(hidden_RD: NDArray[Any], levels: int) -> tuple[NDArray[np.float16], NDArray[np.int8]]:
    """Scales [R, G] and codes [R, G, 64] in -levels..levels; what lies beyond the width is 0.

    scale = FP16(absmax / levels), at most 65504; code = round(value * (1 / scale)), clipped. A group whose scale
    rounds to zero gets codes 0; one with a NaN or an Inf gets scale NaN and codes 0 and decodes to NaN as a whole.
    """
    rows, width = hidden_RD.shape
    padded = np.zeros((rows, group_count(width) * GROUP), np.float32)
    padded[:, :width] = hidden_RD
    values = padded.reshape(rows, -1, GROUP)
    absmax = np.abs(values).max(axis=2)
    finite = np.isfinite(absmax)
    scales = np.minimum(np.where(finite, absmax, 0) / np.float32(levels), _HALF_MAX).astype(np.float16)
    inverse = np.zeros(scales.shape, np.float32)
    np.divide(np.float32(1), scales, out=inverse, where=scales > 0, dtype=np.float32)
    with np.errstate(over="ignore"):  # an FP32 group may be far beyond what its scale can hold
        scaled = np.where(finite[..., None], values, 0) * inverse[..., None]
    codes = np.rint(np.clip(scaled, -levels, levels)).astype(np.int8)
    return np.where(finite, scales, _HALF_NAN), codes


def dequantize(scales_RG: NDArray[np.float16], codes_RD: NDArray[np.int8], out_RD: NDArray[Any]) -> None:
    """out = code * scale; FP16 is clipped to +-65504, so that no finite value becomes Inf."""
    rows, width = out_RD.shape
    scales_RD = np.repeat(scales_RG.astype(np.float32), GROUP, axis=1)[:, :width]
    values = codes_RD * scales_RD
    if out_RD.dtype == np.float16:
        values = np.clip(values, -_HALF_MAX, _HALF_MAX)
    out_RD[...] = values


def check_bytes(payload: Buffer, expected_bytes: int, out_RD: NDArray[Any]) -> None:
    """Raise TransportError where a payload is not as long as rows of this shape make it."""
    payload_bytes = memoryview(payload).nbytes
    if payload_bytes != expected_bytes:
        raise TransportError(
            f"a payload of {payload_bytes} bytes, rows of shape {out_RD.shape} take {expected_bytes}"
        )


def join_payload(scales_RG: NDArray[np.float16], packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """All scales, then all packed codes."""
    return np.concatenate([scales_RG.astype("<f2").reshape(-1).view(np.uint8), packed.reshape(-1)])


def split_payload(payload: Buffer, rows: int, width: int) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """The scales [R, G] and packed codes [R, bytes a row] of a payload whose length was checked."""
    data = np.frombuffer(payload, np.uint8)
    scale_bytes = 2 * rows * group_count(width)
    return data[:scale_bytes].view("<f2").reshape(rows, -1), data[scale_bytes:].reshape(rows, -1)
