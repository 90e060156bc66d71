"""What the operator Attention of csrc/ops computes, in NumPy: its specification, and that of its cache.

Rows of any slots stand one behind another, each at a position of its slot. First all rows' keys and values are stored,
then each row attends to its slot's positions up to its own. A cache is bytes [slots, heads, positions, bytes of one];
in a head of a slot, 16 positions form a tile:

    keys    [scales,] numbers [head_dim, 16]      values  [scales,] numbers [16, head_dim]

Numbers are FP32, FP16, or signed bytes with an FP32 scale a position (largest magnitude / 127). Arithmetic is FP32 in
the order written here, products and sums of numbers fused (`_fma`), so every instruction set gives the same bits, and a
row's result depends on nothing beside its slot.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hyperlane.quantization.reference import F32, SMALLEST, exponential, sum_in_lanes

POSITIONS = 16  # of a tile

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Attributes of the operator. window: positions a row looks back on, its own included; 0: all of them."""

    heads: int
    kv_heads: int
    bits: int  # of the cache's numbers: 32, 16 or 8
    scale: float
    window: int = 0
    softcap: float = 0.0

    def attend(
        self,
        q_RN: F32,
        k_RM: F32,
        v_RM: F32,
        keys: Bytes,
        values: Bytes,
        positions_R: Integers,
        slots_R: Integers,
        turn: tuple[F32, F32] | None = None,
    ) -> F32:
        """Rows [R, heads * head_dim] of attention; `keys` and `values` are written to.

        turn: cosines and sines [R, up to head_dim / 2] by which queries and keys are rotated first, in halves.
        A row that sees a score that is not finite becomes NaN.
        """
        rows, D = len(q_RN), q_RN.shape[1] // self.heads
        if turn is not None:
            q_RN, k_RM = _rotated(q_RN, *turn, D), _rotated(k_RM, *turn, D)
        for r in range(rows):
            for g in range(self.kv_heads):
                place = (slots_R[r], g, positions_R[r])
                self._store(keys, place, k_RM[r, g * D : (g + 1) * D], by_element=True)
                self._store(values, place, v_RM[r, g * D : (g + 1) * D], by_element=False)
        out = np.empty_like(q_RN)
        for r in range(rows):
            for h in range(self.heads):
                slot, g = slots_R[r], h // (self.heads // self.kv_heads)
                query = q_RN[r, h * D : (h + 1) * D] * np.float32(self.scale)
                out[r, h * D : (h + 1) * D] = self._one(query, keys[slot, g], values[slot, g], int(positions_R[r]) + 1)
        return out

    def _one(self, query_D: F32, keys: Bytes, values: Bytes, stop: int) -> F32:
        """A query of one head at position `stop` - 1."""
        D, start = len(query_D), max(0, stop - self.window) if self.window else 0
        key_tiles, key_scales = self._tiles(keys, D)
        value_tiles, value_scales = self._tiles(values, D)
        scores = np.zeros(len(key_tiles) * POSITIONS, np.float32)
        keys_DT = key_tiles.reshape(-1, D, POSITIONS).transpose(1, 0, 2).reshape(D, -1)
        for d in range(D):
            scores = _fma(query_D[d], keys_DT[d], scores)
        scores = scores * key_scales
        if not np.isfinite(scores[start:stop]).all():
            return np.full(D, np.nan, np.float32)
        if self.softcap:
            e = exponential(scores * np.float32(np.float32(2) / np.float32(self.softcap)))
            scores = (np.float32(1) - np.float32(2) / (e + np.float32(1))) * np.float32(self.softcap)
        seen = np.arange(len(scores))
        weights = np.where(
            (start <= seen) & (seen < stop), exponential(scores - scores[start:stop].max()), np.float32(0)
        )
        first = start // POSITIONS * POSITIONS
        total = sum_in_lanes(weights[None, first:stop])[0]
        out = np.zeros(D, np.float32)
        values_TD = value_tiles.reshape(-1, D)
        for t in range(start, stop):
            out = _fma(weights[t] * value_scales[t], values_TD[t], out)
        result: F32 = out * (np.float32(1) / total)
        return result

    def _tiles(self, head: Bytes, D: int) -> tuple[F32, F32]:
        """Numbers [tiles, 16 * head_dim] and scales [positions] of a head of a slot [positions, bytes a position]."""
        tiles = head.reshape(len(head) // POSITIONS, -1)
        if self.bits == 8:
            split = POSITIONS * 4
            scales = np.ascontiguousarray(tiles[:, :split]).view(np.float32).reshape(-1)
            return tiles[:, split:].view(np.int8).astype(np.float32), scales
        kind = np.float32 if self.bits == 32 else np.float16
        return tiles.view(kind).astype(np.float32), np.ones(len(head), np.float32)

    def _store(self, cache: Bytes, place: tuple[int, int, int], head_D: F32, *, by_element: bool) -> None:
        slot, g, position = place
        head, D, within = cache[slot, g], len(head_D), position % POSITIONS
        tile = head.reshape(len(head) // POSITIONS, -1)[position // POSITIONS]
        if self.bits == 8:
            largest = np.abs(head_D).max()
            tile[: POSITIONS * 4].view(np.float32)[within] = _scale(largest)
            usable = np.isfinite(largest) and largest >= SMALLEST
            with np.errstate(all="ignore"):
                codes = np.rint(head_D * (np.float32(127) / largest)) if usable else np.zeros(D)
            tile, head_D = tile[POSITIONS * 4 :].view(np.int8), codes.astype(np.float32)
        else:
            tile = tile.view(np.float32 if self.bits == 32 else np.float16)
        numbers = tile.reshape(D, POSITIONS)[:, within] if by_element else tile.reshape(POSITIONS, D)[within]
        with np.errstate(over="ignore"):
            numbers[:] = head_D.astype(tile.dtype)


def new_cache(slots: int, kv_heads: int, length: int, head_dim: int, bits: int) -> Bytes:
    """Zeros; `length` in whole tiles."""
    return np.zeros((slots, kv_heads, length, position_bytes(head_dim, bits)), np.uint8)


def position_bytes(head_dim: int, bits: int) -> int:
    """Of a head's key or value at one position."""
    return head_dim + 4 if bits == 8 else head_dim * bits // 8


def _scale(largest: np.float32) -> np.float32:
    if not np.isfinite(largest):
        return np.float32(np.nan)
    return np.float32(largest / np.float32(127)) if largest >= SMALLEST else np.float32(0)


def _rotated(rows_RN: F32, cos_RH: F32, sin_RH: F32, D: int) -> F32:
    """Element i of a head with element i + H; what is behind 2 H stays."""
    heads, H = rows_RN.reshape(len(rows_RN), -1, D), cos_RH.shape[1]
    low, high, cos, sin = heads[..., :H], heads[..., H : 2 * H], cos_RH[:, None], sin_RH[:, None]
    turned = np.concatenate([low * cos - high * sin, high * cos + low * sin, heads[..., 2 * H :]], axis=2)
    return turned.reshape(rows_RN.shape)


def _fma(a: np.float32, b: F32, c: F32) -> F32:
    """a * b + c, rounded once: in FP64 the product is exact, and the sum is rounded to odd before it becomes FP32."""
    product, c_64 = np.float64(a) * b.astype(np.float64), c.astype(np.float64)
    total = product + c_64
    with np.errstate(invalid="ignore"):
        back = total - product
        error = (product - (total - back)) + (c_64 - back)
        even = (total.view(np.int64) & 1) == 0
        odd = np.where((error != 0) & np.isfinite(error) & even, np.nextafter(total, np.copysign(np.inf, error)), total)
    return odd.astype(np.float32)
