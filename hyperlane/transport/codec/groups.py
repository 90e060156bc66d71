"""Symmetric quantization in groups of 64 values: what codecs int8 and int4_plain share.

All arithmetic is FP32, each operation rounded to nearest even, none fused; native code gives the same bits.
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
    """Scales [R, G] and codes [R, 64 G] in -levels..levels; what lies beyond the width is 0.

    scale = FP16(absmax / levels), at most 65504; code = round(value * (1 / scale)), clipped. A group whose
    scale rounds to zero gets codes 0; one with a NaN or an Inf gets scale NaN and codes 0: all of it is NaN.
    """
    rows, width = hidden_RD.shape
    groups = group_count(width)
    padded = np.zeros((rows, groups * GROUP), np.float32)
    padded[:, :width] = hidden_RD
    values = padded.reshape(rows, groups, GROUP)
    absmax = np.abs(values).max(axis=2)
    finite = np.isfinite(absmax)
    scales = np.minimum(np.where(finite, absmax, 0) / np.float32(levels), _HALF_MAX).astype(np.float16)
    inverse = np.zeros(scales.shape, np.float32)
    np.divide(np.float32(1), scales, out=inverse, where=scales > 0, dtype=np.float32)
    with np.errstate(over="ignore"):  # an FP32 group may be far beyond what its scale can hold
        scaled = np.where(finite[..., None], values, 0) * inverse[..., None]
    codes = np.rint(np.clip(scaled, -levels, levels)).astype(np.int8)
    return np.where(finite, scales, _HALF_NAN), codes.reshape(padded.shape)


def dequantize(scales_RG: NDArray[np.float16], codes_RD: NDArray[np.int8], out_RD: NDArray[Any]) -> None:
    """out = code * scale; FP16 is clipped to +-65504, so that no finite value becomes Inf."""
    scales_RD = np.repeat(scales_RG.astype(np.float32), GROUP, axis=1)[:, : out_RD.shape[1]]
    values = codes_RD * scales_RD
    if out_RD.dtype == np.float16:
        values = np.clip(values, -_HALF_MAX, _HALF_MAX)
    out_RD[...] = values


def check_bytes(payload: Buffer, expected_bytes: int, out_RD: NDArray[Any]) -> None:
    """Raise TransportError where a payload is not as long as rows of this shape make it."""
    payload_bytes = np.frombuffer(payload, np.uint8).size
    if payload_bytes != expected_bytes:
        raise TransportError(f"a payload of {payload_bytes} bytes, rows of shape {out_RD.shape} take {expected_bytes}")


def join_payload(scales_RG: NDArray[np.float16], packed: NDArray[Any]) -> NDArray[np.uint8]:
    """All scales, then all packed codes."""
    return np.concatenate([scales_RG.astype("<f2").reshape(-1).view(np.uint8), packed.reshape(-1).view(np.uint8)])


def split_payload(
    payload: Buffer, rows: int, width: int, row_bytes: int
) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """The scales [R, G] and packed codes [R, row_bytes] of a payload whose length was checked."""
    data, groups = np.frombuffer(payload, np.uint8), group_count(width)
    scale_bytes = 2 * rows * groups
    return data[:scale_bytes].view("<f2").reshape(rows, groups), data[scale_bytes:].reshape(rows, row_bytes)
