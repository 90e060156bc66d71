"""GB/s of FP16 input, encode and decode, of every codec on one core, next to a memcpy of the same input.

Each figure is the best of several runs, the memcpy's taken between them. A single row's rows are in microseconds too.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np

from hyperlane.transport.calibrate import calibrate
from hyperlane.transport.codec import Codec, make_codec
from hyperlane.transport.codec.tabled import TABLED_NAMES, TabledCodec
from tests.bench.row import Row, compared

ROWS = (1, 8, 512, 8192)
WIDTHS = (576, 4096, 8192)
PLAIN = ("raw", "int8", "int4_plain")


def run(args: Sequence[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="python -m tests.bench codec")
    parser.add_argument("--codec", choices=(*PLAIN, *TABLED_NAMES), action="append", help="may repeat; all")
    parser.add_argument("--rows", type=int, action="append", help="may repeat; 1, 8, 512 and 8192")
    parser.add_argument("--width", type=int, action="append", help="may repeat; 576, 4096 and 8192")
    options = parser.parse_args(args)
    return [
        row
        for width in options.width or WIDTHS
        for rows in options.rows or ROWS
        for row in _measure(rows, width, options.codec or (*PLAIN, *TABLED_NAMES))
    ]


def _measure(rows: int, width: int, names: Sequence[str]) -> list[Row]:
    hidden = _hidden(max(rows, 256), width)
    tables = calibrate(hidden[:256])
    hidden = np.ascontiguousarray(hidden[:rows]).astype(np.float16)
    out, positions = np.empty_like(hidden), np.arange(1, rows + 1, dtype=np.uint32)
    result = []
    for name in names:
        codec: Codec = TabledCodec(name, tables) if name in TABLED_NAMES else make_codec(name)
        payload = codec.encode(hidden, positions)
        copy_s, encode_s, decode_s = _best_s(
            lambda: np.copyto(out, hidden),
            lambda codec=codec: codec.encode(hidden, positions),
            lambda codec=codec, payload=payload: codec.decode(payload, positions, out),
        )
        what = f"{name} {rows}x{width}"
        speeds = [hidden.nbytes / seconds / 1e9 for seconds in (copy_s, encode_s, decode_s)]
        result.append(compared(f"{what} encode", speeds[1], "GB/s", speeds[0]))
        result.append(compared(f"{what} decode", speeds[2], "GB/s", speeds[0]))
        if rows == 1:
            result.append(Row(what=f"{what} encode + decode", value=(encode_s + decode_s) * 1e6, unit="us"))
    return result


def _hidden(rows: int, width: int) -> np.ndarray:
    """Like a residual stream: channels of very different strength, and means."""
    rng = np.random.default_rng(0)
    strength, mean = np.exp(rng.standard_normal(width) / 2), rng.standard_normal(width) / 4
    return (rng.standard_normal((rows, width), np.float32) * strength + mean).astype(np.float32)


def _best_s(*works: Callable[[], object]) -> list[float]:
    """The shortest time of each, in turns, for about a fifth of a second each and at least three turns."""
    best, turns, end = [float("inf")] * len(works), 0, time.perf_counter() + 0.2 * len(works)
    while turns < 3 or time.perf_counter() < end:
        for index, work in enumerate(works):
            start = time.perf_counter()
            work()
            best[index] = min(best[index], time.perf_counter() - start)
        turns += 1
    return best
