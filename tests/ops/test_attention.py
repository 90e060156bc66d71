"""The native attention gives the bits of hyperlane/model/attention.py on every instruction set."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hyperlane import _native
from hyperlane.model.attention import POSITIONS, Attention, Bytes, _fma, new_cache

ISAS = tuple(_native.isas())
KINDS = (32, 16, 8)


class Case:
    """Rows of some slots behind what the slots hold already."""

    def __init__(self, seed: int, layer: Attention, head_dim: int, runs: list[tuple[int, int, int]]) -> None:
        rng = np.random.default_rng(seed)
        self.layer, self.D = layer, head_dim
        length = -(-max(position + count for _, position, count in runs) // POSITIONS) * POSITIONS
        slots = max(slot for slot, _, _ in runs) + 1
        self.keys, self.values = (new_cache(slots, layer.kv_heads, length, head_dim, layer.bits) for _ in range(2))
        self.slots = np.concatenate([np.full(count, slot, np.int64) for slot, _, count in runs])
        self.positions = np.concatenate([np.arange(start, start + count) for _, start, count in runs])
        for slot, position, _ in runs:
            if position:
                past = [rng.normal(size=(position, layer.kv_heads * head_dim)).astype(np.float32) for _ in range(2)]
                rows = np.zeros((position, layer.heads * head_dim), np.float32)
                places = np.arange(position), np.full(position, slot, np.int64)
                self.native(rows, *past, *places, self.keys, self.values, ISAS[0])
        shapes = (layer.heads, layer.kv_heads, layer.kv_heads)
        self.rows = [rng.normal(size=(len(self.slots), n * head_dim)).astype(np.float32) * 2 for n in shapes]

    def native(
        self,
        q: NDArray,
        k: NDArray,
        v: NDArray,
        positions: NDArray,
        slots: NDArray,
        keys: Bytes,
        values: Bytes,
        isa: str,
    ) -> NDArray[np.float32]:
        a = self.layer
        options = {"heads": a.heads, "bits": a.bits, "scale": a.scale, "window": a.window, "softcap": a.softcap}
        return _native.attention(q, k, v, keys, values, positions, slots, isa=isa, **options)

    def run(self, isa: str, rows: slice = slice(None)) -> tuple[NDArray[np.float32], Bytes, Bytes]:
        keys, values = self.keys.copy(), self.values.copy()
        given = [array[rows] for array in (*self.rows, self.positions, self.slots)]
        return self.native(*given, keys, values, isa), keys, values

    def reference(self) -> tuple[NDArray[np.float32], Bytes, Bytes]:
        keys, values = self.keys.copy(), self.values.copy()
        return self.layer.attend(*self.rows, keys, values, self.positions, self.slots), keys, values


def layer(heads: int = 6, kv_heads: int = 2, bits: int = 32, window: int = 0, softcap: float = 0.0) -> Attention:
    return Attention(heads=heads, kv_heads=kv_heads, bits=bits, scale=0.17, window=window, softcap=softcap)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("bits", KINDS)
@given(
    group=st.integers(1, 8),
    kv_heads=st.integers(1, 3),
    head_dim=st.sampled_from([8, 16, 24, 64, 80]),
    window=st.sampled_from([0, 1, 5, 20]),
    softcap=st.sampled_from([0.0, 5.0]),
    runs=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), min_size=1, max_size=3),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=15)
def test_rows_and_cache_are_the_references(
    isa: str,
    bits: int,
    group: int,
    kv_heads: int,
    head_dim: int,
    window: int,
    softcap: float,
    runs: list[tuple[int, int]],
    seed: int,
) -> None:
    attention = layer(group * kv_heads, kv_heads, bits, window, softcap)
    case = Case(seed, attention, head_dim, [(slot, *run) for slot, run in enumerate(runs)])
    for found, expected in zip(case.run(isa), case.reference(), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("bits", KINDS)
@pytest.mark.parametrize("window", [0, 7])
def test_a_row_depends_on_its_slot_alone(bits: int, window: int) -> None:
    case = Case(1, layer(bits=bits, window=window), 64, [(0, 30, 20), (2, 0, 1), (1, 3, 5)])
    together, *_ = case.run("")
    for start, stop in ((0, 20), (20, 21), (21, 26)):
        alone, *_ = case.run("", slice(start, stop))
        np.testing.assert_array_equal(alone, together[start:stop])


def test_a_prompt_in_pieces_is_the_same() -> None:
    case = Case(2, layer(bits=16), 32, [(0, 0, 50)])
    whole, keys, values = case.run("")
    keys[:], values[:] = 0, 0
    pieces = []
    for start, stop in ((0, 1), (1, 18), (18, 19), (19, 50)):
        rows = [array[start:stop] for array in (*case.rows, case.positions, case.slots)]
        pieces.append(case.native(*rows, keys, values, ""))
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_it_is_attention() -> None:
    case = Case(3, layer(), 16, [(0, 0, 12)])
    q, k, v = (rows.reshape(12, -1, 16).astype(np.float64).transpose(1, 0, 2) for rows in case.rows)
    scores = q @ np.repeat(k, 3, 0).transpose(0, 2, 1) * 0.17 + np.triu(np.full((12, 12), -np.inf), 1)
    weights = np.exp(scores - scores.max(2, keepdims=True))
    expected = (weights / weights.sum(2, keepdims=True)) @ np.repeat(v, 3, 0)
    found, *_ = case.run("")
    np.testing.assert_allclose(found, expected.transpose(1, 0, 2).reshape(12, -1), atol=2e-6)


@pytest.mark.parametrize(("bits", "limit"), [(16, 2e-3), (8, 3e-2)])
def test_a_smaller_cache_is_near(bits: int, limit: float) -> None:
    runs = [(0, 40, 6)]
    exact, *_ = Case(4, layer(), 64, runs).run("")
    near, *_ = Case(4, layer(bits=bits), 64, runs).run("")
    assert 0 < np.abs(near - exact).max() < limit * np.abs(exact).max()


def test_what_no_row_may_see_changes_nothing() -> None:
    """NaNs behind a row, in another slot, and where a window ends."""
    case = Case(5, layer(window=9), 16, [(0, 20, 3), (1, 2, 1)])
    clean, *_ = case.run("")
    numbers = case.keys.view(np.float32), case.values.view(np.float32)
    keys = numbers[0].reshape(2, 2, -1, 16, POSITIONS)  # slot, head, tile, element, position
    values = numbers[1].reshape(2, 2, -1, POSITIONS, 16)
    keys[0, :, 1, :, 7:] = values[0, :, 1, 7:] = np.nan  # from position 23 on
    keys[0, :, 0, :, :11] = values[0, :, 0, :11] = np.nan  # before position 11
    keys[1, :, 0, :, 3:] = values[1, :, 0, 3:] = np.nan
    found, *_ = case.run("")
    np.testing.assert_array_equal(found, clean)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("bits", KINDS)
def test_halves_are_rotated_first(isa: str, bits: int) -> None:
    case = Case(6, layer(bits=bits), 16, [(0, 5, 4), (1, 0, 2)])
    angles = np.random.default_rng(7).normal(size=(6, 6)).astype(np.float32)
    turn = np.cos(angles), np.sin(angles)
    keys, values, a = case.keys.copy(), case.values.copy(), case.layer
    expected = a.attend(*case.rows, keys, values, case.positions, case.slots, turn)
    given = (*case.rows, case.keys, case.values, case.positions, case.slots)
    found = _native.attention(*given, heads=a.heads, bits=bits, scale=a.scale, cos=turn[0], sin=turn[1], isa=isa)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(case.keys, keys)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("softcap", [0.0, 5.0])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_sees_what_is_not_finite_is_nan(isa: str, softcap: float, bad: float) -> None:
    case = Case(9, layer(softcap=softcap), 16, [(0, 0, 20)])
    case.rows[1][17, 3] = bad  # a key of the first head of two
    found, *_ = case.run(isa)
    expected, *_ = case.reference()
    np.testing.assert_array_equal(found, expected)
    assert np.isnan(found[17:, : 3 * 16]).all()
    assert np.isfinite(found[:17]).all()
    assert np.isfinite(found[:, 3 * 16 :]).all()


def test_the_references_sums_are_fused() -> None:
    a, b = np.float32((1 + 2**-23) * 2**-12), np.float32((1 - 2**-23) * 2**-12)
    fused = _fma(a, np.array([b]), np.array([1 + 2**-23], np.float32))
    assert fused[0] == np.float32(1 + 2**-23)  # rounded twice it would be the next one


def test_a_place_outside_is_refused() -> None:
    case = Case(8, layer(), 16, [(0, 0, 2)])
    case.positions[1] = 16
    with pytest.raises(ValueError, match="position 16 of slot 0 is outside the cache of 1 slots of 16 positions"):
        case.run("")
