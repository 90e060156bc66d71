"""Our operators for GPUs against NumPy in FP64. Needs a Hopper GPU and the extension built with CUDA.

Results are FP16, so that they may be off by half a unit of the last place, and by what FP16 loses in normed rows,
turned keys and softmax: 2e-3 of the root mean square, each value 1e-2 of it plus 1e-2 of its own size.
"""

from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from hyperlane.worker.gpu import Gpu
from hyperlane.worker.operators import operators_version

pytestmark = pytest.mark.skipif(operators_version("cuda:0") == 0, reason="no GPU with the operators")
Half = NDArray[np.float16]


class Device:
    """Arrays on the GPU."""

    def __init__(self) -> None:
        from hyperlane.transport.codec.device import cuda

        self.gpu, self.module = Gpu(0), cast(Any, cuda())
        self._kept: list[Any] = []

    def put(self, array: NDArray[Any]) -> int:
        memory = self.gpu.memory(array.nbytes)
        self.gpu.stream.copy(memory.address, np.ascontiguousarray(array).ctypes.data, array.nbytes)
        self.gpu.stream.synchronize()
        self._kept.append(memory)
        return int(memory.address)

    def get(self, address: int, shape: tuple[int, ...]) -> Half:
        array = np.empty(shape, np.float16)
        self.gpu.stream.copy(array.ctypes.data, address, array.nbytes)
        self.gpu.stream.synchronize()
        return array


def halves(seed: int, *shape: int, scale: float = 1.0) -> Half:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float16)


def assert_near(found: Half, expected: NDArray[np.float64]) -> None:
    off, size = np.abs(found.astype(np.float64) - expected), float(np.sqrt((expected**2).mean()))
    assert np.sqrt((off**2).mean()) < 2e-3 * size
    assert np.all(off < 1e-2 * (size + np.abs(expected)))


def linear(
    x: Half, weights: list[Half], norm: Half | None, residual: Half | None, epsilon: float
) -> NDArray[np.float64]:
    """The specification: RMS norm, product or silu of the first times the second, sum."""
    rows = x.astype(np.float64)
    if norm is not None:
        rows = rows / np.sqrt((rows**2).mean(-1, keepdims=True) + epsilon) * norm
        rows = rows.astype(np.float16).astype(np.float64)
    products = [rows @ weight.astype(np.float64) for weight in weights]
    out = products[0] if len(products) == 1 else products[0] / (1 + np.exp(-products[0])) * products[1]
    return out if residual is None else out + residual


@pytest.mark.parametrize("rows", [1, 3, 8, 9, 27, 32, 50, 64, 65, 200])
@pytest.mark.parametrize("kind", ["plain", "norm", "gated", "residual"])
@pytest.mark.parametrize("size", [(512, 320), (1408, 1024), (4096, 1280)], ids=str)
def test_products(rows: int, kind: str, size: tuple[int, int]) -> None:
    K, N = size
    device, x = Device(), halves(1, rows, K)
    weights = [halves(2 + i, K, N, scale=K**-0.5) for i in range(2 if kind == "gated" else 1)]
    norm = halves(4, K) if kind in ("norm", "gated") else None
    residual = halves(5, rows, N) if kind == "residual" else None
    out = device.put(np.full((rows, N), np.nan, np.float16))
    scratch = device.put(np.zeros(rows * (K + 2 * N), np.float16))
    second = weights[1] if len(weights) > 1 else None
    given = [0 if array is None else device.put(array) for array in (x, weights[0], second, norm, residual)]
    found = []
    for _ in range(3):
        device.module.half_linear(*given, out, scratch, rows, K, N, 1e-5, device.gpu.stream)
        found.append(device.get(out, (rows, N)))
    assert_near(found[0], linear(x, weights, norm, residual, 1e-5))
    assert all(np.array_equal(found[0], other) for other in found[1:])


def attention(
    packed: Half, keys: Half, values: Half, starts: list[int], tables: tuple[Half, Half], kv_heads: int
) -> NDArray[np.float64]:
    """The specification. packed [slots, rows, heads + 2 kv_heads, head]; writes the cache."""
    slots, rows, all_heads, head = packed.shape
    heads = all_heads - 2 * kv_heads
    out = np.empty((slots, rows, heads, head))
    for slot in range(slots):
        for row in range(rows):
            position = starts[slot] + row
            cos, sin = (np.tile(table[position].astype(np.float64), 2) for table in tables)
            own = packed[slot, row, : heads + kv_heads].astype(np.float64)
            turned = own * cos + np.concatenate([-own[:, head // 2 :], own[:, : head // 2]], 1) * sin
            keys[slot, :, position] = turned[heads:]
            values[slot, :, position] = packed[slot, row, heads + kv_heads :]
            for h in range(heads):
                at = slot, h * kv_heads // heads, slice(position + 1)
                scores = keys[at].astype(np.float64) @ turned[h] * head**-0.5
                powers = np.exp(scores - scores.max())
                out[slot, row, h] = powers / powers.sum() @ values[at].astype(np.float64)
    return out


@pytest.mark.parametrize(("head", "heads", "kv_heads"), [(128, 8, 8), (128, 8, 2), (64, 16, 2), (64, 6, 3), (64, 3, 3)])
@pytest.mark.parametrize(("slots", "rows"), [(1, 1), (5, 1), (32, 1), (1, 5), (1, 64), (2, 130)])
def test_attention(head: int, heads: int, kv_heads: int, slots: int, rows: int) -> None:
    length, device = 600, Device()
    starts = np.random.default_rng(slots).integers(0, length - rows, slots).tolist()
    starts[0] = 0 if rows > 1 else starts[0]
    packed = halves(6, slots, rows, heads + 2 * kv_heads, head)
    keys, values = (halves(seed, slots, kv_heads, length, head) for seed in (7, 8))
    angles = np.arange(length)[:, None] * 100.0 ** -(np.arange(head // 2) / head)
    tables = np.cos(angles).astype(np.float16), np.sin(angles).astype(np.float16)
    positions = np.array(starts, np.int64)[:, None] + np.arange(rows)
    places = [device.put(array) for array in (packed, keys, values, positions, *tables)]
    out = device.put(np.full((slots, rows, heads * head), np.nan, np.float16))
    device.module.half_attention(
        *places, out, slots, rows, heads, kv_heads, head, length, head**-0.5, device.gpu.stream
    )
    found = device.get(out, (slots, rows, heads, head))
    caches = [device.get(place, keys.shape) for place in places[1:3]]
    expected = attention(packed, keys, values, starts, tables, kv_heads)
    assert_near(found, expected)
    assert_near(caches[0], keys.astype(np.float64))
    assert np.array_equal(caches[1], values)
