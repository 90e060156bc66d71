"""rANS: any symbols of any tables come back, in the bits that their frequencies promise; other bytes are refused."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperlane.errors import TransportError
from hyperlane.transport.codec import rans

SKEWED = np.array([[1, 250, 1, 4], [64, 64, 64, 64], [0, 128, 128, 0], [255, 1, 0, 0]], np.uint8)


def coded(symbol_SNL: np.ndarray, table_SNL: np.ndarray) -> list[np.ndarray]:
    frequency_SNL = np.where(table_SNL < 0, 0, SKEWED[table_SNL, symbol_SNL]).astype(np.uint8)
    return rans.encode(frequency_SNL, rans.starts(SKEWED)[table_SNL, symbol_SNL])


@st.composite
def steps(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Symbols and tables [strings, steps, lanes]; some lanes of the last step have none."""
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 40)), rans.LANES)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    table = np.broadcast_to(rng.integers(0, len(SKEWED), shape[1])[None, :, None], shape).astype(np.int16)
    table = table.copy()
    table[:, -1, draw(st.integers(1, rans.LANES)) :] = -1
    present = [np.flatnonzero(frequency_K) for frequency_K in SKEWED]
    symbol = np.array([present[t][rng.integers(0, len(present[t]))] for t in table.ravel()], np.uint8).reshape(shape)
    symbol[table < 0] = 0
    return symbol, table


@given(steps())
@settings(max_examples=60, deadline=None)
def test_symbols_come_back(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    symbol, table = drawn
    np.testing.assert_array_equal(rans.decode(coded(symbol, table), SKEWED, table), symbol)


def test_golden_string() -> None:
    symbol = np.zeros((1, 2, rans.LANES), np.uint8)
    symbol[0, :, ::2] = 1
    (string,) = coded(symbol, np.zeros(symbol.shape, np.int16))
    assert string[:8].tobytes().hex(" ") == "0e 01 00 01 0e 01 00 01"
    assert string[rans.STATES_BYTES :].tobytes().hex() == "00" * 32


def test_symbols_take_the_bits_of_their_frequencies() -> None:
    rng = np.random.default_rng(1)
    frequency = np.array([[3, 10, 40, 75, 75, 40, 10, 3]], np.uint8)
    symbol = rng.choice(8, (1, 2000, rans.LANES), p=frequency[0] / 256).astype(np.uint8)
    (string,) = rans.encode(frequency[0][symbol], rans.starts(frequency)[0][symbol])
    ideal_bits = np.log2(256 / frequency[0][symbol].astype(np.float64)).sum()
    assert ideal_bits <= 8 * (len(string) - rans.LANES) <= 1.004 * ideal_bits


def test_strings_that_were_not_encoded_so_are_refused() -> None:
    rng = np.random.default_rng(2)
    table = np.ones((1, 20, rans.LANES), np.int16)
    (string,) = coded(rng.integers(0, 4, table.shape).astype(np.uint8), table)
    for wrong in (string[:-1], string[:10], np.append(string, np.uint8(0)), string ^ np.uint8(1)):
        with pytest.raises(TransportError, match="string of rANS"):
            rans.decode([wrong], SKEWED, table)


def test_one_long_string_does_not_take_its_memory_for_all_of_them() -> None:
    table = np.ones((200, 1, rans.LANES), np.int16)
    strings = [np.zeros(rans.STATES_BYTES, np.uint8)] * 199 + [np.zeros(1 << 20, np.uint8)]
    tracemalloc.start()
    try:
        with pytest.raises(TransportError, match="more than the 96 bytes"):
            rans.decode(strings, SKEWED, table)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
