"""What the operators of csrc/ops compute, in NumPy: the specification of weights in blocks and of products with them.

A weight [N, K] is cut into blocks of 32 values along K. A block has unsigned codes u of 4 or 8 bits, a scale and
perhaps a minimum, both FP16: w = scale * u + minimum, or without minimum scale * (u - 2^(bits - 1)). As stored, 16 rows
form a tile whose bytes are interleaved, so that one vector instruction meets 4 codes of each (tiled):

    codes   uint8 [N / 16, blocks, 32 * bits / 32, 16, 4]   byte j of a row's block: codes 2 j and 2 j + 1, or code j
    scales  FP16  [N / 16, blocks, 16]

Products round each block of an input row to 8 signed bits first. All arithmetic is FP32 in the order written here,
without fused multiply-add, so every instruction set gives the same bits, and a row never depends on its neighbours.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 32
TILE = 16
SMALLEST = np.float32(2.0**-100)  # a block of a row whose values are all smaller counts as zero

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """A weight [N, K] in blocks; `minima` is None where the codes are symmetric."""

    bits: int
    codes_NK: NDArray[np.uint8]
    scales_NB: NDArray[np.float16]
    minima_NB: NDArray[np.float16] | None = None

    def values(self) -> F32:
        """The weight as FP32 [N, K]."""
        scales = np.repeat(self.scales_NB.astype(np.float32), BLOCK, 1)[:, : self.codes_NK.shape[1]]
        if self.minima_NB is None:
            return (self.codes_NK.astype(np.float32) - np.float32(2 ** (self.bits - 1))) * scales
        minima = np.repeat(self.minima_NB.astype(np.float32), BLOCK, 1)[:, : self.codes_NK.shape[1]]
        return self.codes_NK.astype(np.float32) * scales + minima


def tiled(weight: Blocks) -> tuple[NDArray[Any], ...]:
    """The stored arrays: codes, scales and, if there are any, minima. Rows and columns are padded with zeros."""
    N, K = weight.codes_NK.shape
    tiles, blocks = -(-N // TILE), -(-K // BLOCK)
    codes = np.zeros((tiles * TILE, blocks * BLOCK), np.uint8)
    codes[:N, :K] = weight.codes_NK
    if weight.bits == 4:
        codes = codes[:, 0::2] | codes[:, 1::2] << 4
    codes = codes.reshape(tiles, TILE, blocks, weight.bits, 4).transpose(0, 2, 3, 1, 4)
    parts = [codes, _tiled_scales(weight.scales_NB, tiles)]
    if weight.minima_NB is not None:
        parts.append(_tiled_scales(weight.minima_NB, tiles))
    return tuple(np.ascontiguousarray(part) for part in parts)


def _tiled_scales(scales_NB: NDArray[np.float16], tiles: int) -> NDArray[np.float16]:
    padded = np.zeros((tiles * TILE, scales_NB.shape[1]), np.float16)
    padded[: len(scales_NB)] = scales_NB
    return padded.reshape(tiles, TILE, -1).transpose(0, 2, 1)


def quantize_rows(x_MK: F32) -> tuple[NDArray[np.int32], F32]:
    """Codes [M, B, 32] of -127 to 127 and scales [M, B]; a block with a NaN or Inf gets the scale NaN."""
    M, K = x_MK.shape
    padded = np.zeros((M, -(-K // BLOCK) * BLOCK), np.float32)
    padded[:, :K] = x_MK
    blocks = padded.reshape(M, -1, BLOCK)
    with np.errstate(all="ignore"):
        largest = np.abs(blocks).max(2)
        finite, usable = np.isfinite(largest), largest >= SMALLEST
        inverse = np.where(finite & usable, np.float32(127) / largest, np.float32(0))
        codes = np.rint(np.where(np.isfinite(blocks), blocks, np.float32(0)) * inverse[:, :, None])
        scales = np.where(usable, largest / np.float32(127), np.float32(0))
    return codes.astype(np.int32), np.where(finite, scales, np.float32(np.nan))


def multiply(x_MK: F32, weight: Blocks) -> F32:
    """x @ weight.T as the operators compute it: FP32 [M, N]."""
    codes_MBK, x_scales_MB = quantize_rows(x_MK)
    M, B, _ = codes_MBK.shape
    N, K = weight.codes_NK.shape
    w = np.zeros((N, B * BLOCK), np.int32)
    w[:, :K] = weight.codes_NK
    w_NBK = w.reshape(N, B, BLOCK)
    totals_MB = codes_MBK.sum(2)
    sum_MN = np.zeros((M, N), np.float32)
    for b in range(B):
        product_MN = codes_MBK[:, b] @ w_NBK[:, b].T
        if weight.minima_NB is None:
            product_MN = product_MN - 2 ** (weight.bits - 1) * totals_MB[:, b, None]
        scaled_MN = product_MN.astype(np.float32) * weight.scales_NB[:, b].astype(np.float32)
        sum_MN += scaled_MN * x_scales_MB[:, b, None]
        if weight.minima_NB is not None:
            row_sums_M1 = (x_scales_MB[:, b] * totals_MB[:, b].astype(np.float32))[:, None]
            sum_MN += weight.minima_NB[:, b].astype(np.float32) * row_sums_M1
    return sum_MN


def rms_norm(x_MK: F32, weight_K: F32, epsilon: float) -> F32:
    """x / sqrt(mean(x^2) + epsilon) * weight."""
    mean_M = sum_in_lanes(x_MK * x_MK) / np.float32(x_MK.shape[1])
    inverse = (np.float32(1) / np.sqrt(mean_M + np.float32(epsilon)))[:, None]
    normed: F32 = (x_MK * inverse) * weight_K
    return normed


def gate(gate: F32, up: F32) -> F32:
    """silu(gate) * up."""
    return (gate / (np.float32(1) + exponential(-gate))) * up


_TERMS = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)


def exponential(x: F32) -> F32:
    """e^x by Cephes's polynomial, x held to [-87, 88]; a NaN becomes -87."""
    x = np.minimum(np.where(x > np.float32(-87), x, np.float32(-87)), np.float32(88))
    n = np.rint(x * np.float32(1.44269504088896341))
    r = (x - n * np.float32(0.693359375)) - n * np.float32(-2.12194440e-4)
    p = np.full_like(r, _TERMS[0])
    for term in _TERMS[1:]:
        p = p * r + np.float32(term)
    y = ((p * r) * r + r) + np.float32(1)
    power: F32 = ((n.astype(np.int32) + 127) << 23).view(np.float32)
    product: F32 = y * power
    return product


def candidates(logits_NV: F32, count: int) -> tuple[NDArray[np.int64], F32, F32]:
    """Ids and logits of the `count` largest, of equals the lower id first, and the logsumexp of each row."""
    ids_NK = np.argsort(-logits_NV, axis=1, kind="stable")[:, :count]
    largest_N1 = logits_NV.max(1, keepdims=True)
    sums_N = sum_in_lanes(exponential(logits_NV - largest_N1))
    logsumexp_N = largest_N1[:, 0].astype(np.float64) + np.log(sums_N.astype(np.float64))
    return ids_NK, np.take_along_axis(logits_NV, ids_NK, 1), logsumexp_N.astype(np.float32)


def sum_in_lanes(x_NK: F32) -> F32:
    """Sums of rows: value i goes to lane i % 16, then lanes are halved: i with i + 8, i + 4, i + 2, i + 1."""
    N, K = x_NK.shape
    padded = np.zeros((N, -(-K // 16) * 16), np.float32)
    padded[:, :K] = x_NK
    lanes = np.zeros((N, 16), np.float32)
    for step in padded.reshape(N, -1, 16).transpose(1, 0, 2):
        lanes = lanes + step
    while lanes.shape[1] > 1:
        half = lanes.shape[1] // 2
        lanes = lanes[:, :half] + lanes[:, half:]
    return lanes[:, 0]
