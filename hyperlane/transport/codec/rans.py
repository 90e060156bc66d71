"""rANS (Duda, arXiv 1311.2540): symbols of known frequency become bytes, a likely one few bits of them.

32 coders side by side, one for each lane of a step, share one string of bytes (Giesen, arXiv 1402.3392). A state
is 16 bits and never below 256; frequencies of a step's table sum to 256, so a symbol moves at most one byte.

String: the 32 states u16, then the bytes in the order in which the decoder takes them: step by step, lane by lane.
The encoder goes backwards, from states of 256 at the end; a decoder that does not end there read another string.
"""

import numpy as np
from numpy.typing import NDArray

from hyperlane.errors import TransportError

LANES = 32
TOTAL = 256  # what the frequencies of a table sum to
STATES_BYTES = 2 * LANES


def encode(frequency_SNL: NDArray[np.uint8], start_SNL: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """S strings, each of N steps of symbols: a symbol's frequency, and the sum of those before it in its table.

    Lanes of frequency 0 have no symbol.
    """
    strings, steps, _ = frequency_SNL.shape
    state_SL = np.full((strings, LANES), TOTAL, np.uint32)
    moved_SNL = np.zeros(frequency_SNL.shape, np.bool_)
    byte_SNL = np.zeros(frequency_SNL.shape, np.uint8)
    for step in reversed(range(steps)):
        frequency_SL = frequency_SNL[:, step].astype(np.uint32)
        present_SL = frequency_SL > 0
        moved_SL = present_SL & (state_SL >= frequency_SL << 8)
        moved_SNL[:, step] = moved_SL
        byte_SNL[:, step] = state_SL & 255
        shifted_SL = np.where(moved_SL, state_SL >> 8, state_SL)
        quotient_SL, rest_SL = np.divmod(shifted_SL, np.maximum(frequency_SL, 1))
        coded_SL = (quotient_SL << 8) + rest_SL + start_SNL[:, step]
        state_SL = np.where(present_SL, coded_SL, state_SL)
    heads_SB = state_SL.astype("<u2").view(np.uint8)
    return [np.concatenate([heads_SB[s], byte_SNL[s][moved_SNL[s]]]) for s in range(strings)]


def decode(
    strings: list[NDArray[np.uint8]], frequency_TK: NDArray[np.uint8], table_SNL: NDArray[np.int16]
) -> NDArray[np.uint8]:
    """The symbols [S, N, L] of `strings`: symbol k of table t has frequency_TK[t, k]; a lane of table -1 has none.

    Raises TransportError for bytes that `encode` cannot have made.
    """
    symbol_TB, start_TK = lookup(frequency_TK), starts(frequency_TK)
    if any(len(string) < STATES_BYTES for string in strings):
        raise TransportError(f"a string of rANS has fewer than its {STATES_BYTES} bytes of states")
    most = STATES_BYTES + table_SNL.shape[1] * LANES  # a symbol takes a byte at most
    if any(len(string) > most for string in strings):
        raise TransportError(f"a string of rANS has more than the {most} bytes that its symbols can take")
    size_S = np.array([len(string) for string in strings])
    data_SB = np.zeros((len(strings), int(size_S.max(initial=0)) + LANES), np.uint8)
    for row, string in zip(data_SB, strings, strict=True):
        row[: len(string)] = string
    state_SL = data_SB[:, :STATES_BYTES].copy().view("<u2").astype(np.uint32)
    symbols_SNL = np.zeros(table_SNL.shape, np.uint8)
    at_S = np.full(len(strings), STATES_BYTES)
    for step in range(table_SNL.shape[1]):
        present_SL, table_SL = table_SNL[:, step] >= 0, np.maximum(table_SNL[:, step], 0)
        slot_SL = state_SL & 255
        symbol_SL = symbol_TB[table_SL, slot_SL]
        frequency_SL = frequency_TK[table_SL, symbol_SL].astype(np.uint32)
        coded_SL = frequency_SL * (state_SL >> 8) + slot_SL - start_TK[table_SL, symbol_SL]
        state_SL = np.where(present_SL, coded_SL, state_SL)
        short_SL = present_SL & (state_SL < TOTAL)
        place_SL = at_S[:, None] + np.cumsum(short_SL, axis=1) - short_SL
        byte_SL = np.take_along_axis(data_SB, np.minimum(place_SL, data_SB.shape[1] - 1), axis=1)
        state_SL = np.where(short_SL, state_SL << 8 | byte_SL, state_SL)
        at_S += short_SL.sum(axis=1)
        symbols_SNL[:, step] = np.where(present_SL, symbol_SL, 0)
    if (at_S != size_S).any() or (state_SL != TOTAL).any():
        raise TransportError("a string of rANS does not end where its symbols do; the sender is faulty")
    return symbols_SNL


def starts(frequency_TK: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The sum of the frequencies before each symbol of its table, below 256."""
    frequency = frequency_TK.astype(np.uint32)
    # A symbol behind the last that has a frequency starts at 256, which nothing asks for.
    start_TK: NDArray[np.uint32] = np.minimum(np.cumsum(frequency, axis=1) - frequency, TOTAL - 1)
    return start_TK.astype(np.uint8)


def lookup(frequency_TK: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[T, 256]: the symbol of each slot."""
    symbols = np.arange(frequency_TK.shape[1], dtype=np.uint8)
    slots = [np.repeat(symbols, frequency_K) for frequency_K in frequency_TK]
    table_TB: NDArray[np.uint8] = np.array(slots, np.uint8).reshape(-1, TOTAL)
    return table_TB
