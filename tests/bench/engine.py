"""The engine against its peers: decode at 1, 8 and 16 streams, prefill, first token, bytes, start-up, memory.

SmolLM2-135M over loopback, two workers of one thread each. All engines take turns in one run; figures are medians.
A ratio above 1 says that ours is better. `--only` measures some rows, `--repeat` says how many turns; what follows
`--` are overrides of ours, as on the command line of hyperlane: `-- quantization=int8 transport/codec=raw`.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from tests.bench.engines import llama_rpc, ours, wire
from tests.bench.engines.engine import Engine, MissingError
from tests.bench.engines.peers import PEERS, open_peer
from tests.bench.engines.repetitive import repetitive
from tests.bench.row import Row, against
from tests.bench.teacher import agreement

NEW_TOKENS = 128
STREAMS = {"decode 1 stream": 1, "decode 8 streams": 8, "decode 16 streams": 16}
PREFILL, FIRST, REPETITIVE = "prefill 512", "first token of a short prompt", "decode 1 stream, repetitive"
BYTES, START_UP, AGREEMENT = "bytes a token", "start-up", "teacher-forced agreement"
TIMED = (*STREAMS, PREFILL, FIRST)
ONLY = (*TIMED, REPETITIVE, BYTES, START_UP, AGREEMENT)


def run(args: Sequence[str]) -> list[Row]:
    options = _parse(args)
    rows: list[Row] = []
    if timed := [name for name in TIMED if name in options.only]:
        rows += _timed(timed, options)
    if REPETITIVE in options.only:
        rows += repetitive(REPETITIVE, NEW_TOKENS, options.repeat, options.overrides)
    if BYTES in options.only:
        rows += [_alone(BYTES, "B", wire.ours(options.overrides), wire.llama_rpc, options)]
    if START_UP in options.only:
        ours.start_up_s(options.overrides)  # exports what the layer store lacks
        seconds = statistics.median(ours.start_up_s(options.overrides) for _ in range(options.repeat))
        rows += [_alone(START_UP, "s", seconds, llama_rpc.start_up_s, options)]
    if AGREEMENT in options.only:
        rows += [Row(what=AGREEMENT, value=agreement(options.overrides), unit="%")]
    return rows


@dataclass(frozen=True, slots=True)
class _Measure:
    unit: str
    more_is_better: bool
    of: Callable[[Engine], float]


def _measure(what: str) -> _Measure:
    if what == PREFILL:
        return _Measure("tok/s", True, lambda engine: 512 / engine.first_token_s(512))
    if what == FIRST:
        return _Measure("ms", False, lambda engine: 1e3 * engine.first_token_s(16))
    return _Measure("tok/s", True, lambda engine: engine.decode_per_s(STREAMS[what], NEW_TOKENS))


def _timed(names: Sequence[str], options: argparse.Namespace) -> list[Row]:
    with ExitStack() as exits:
        engines: list[Engine] = [exits.enter_context(ours.Ours.open(options.overrides))]
        for peer in options.peer:
            try:
                engines.append(exits.enter_context(open_peer(peer)))
            except MissingError as missing:
                print(f"missing peer, its rows have no ratio: {missing}", file=sys.stderr)
        rows = [row for name in names for row in _compared(name, engines, options)]
        return rows + [
            Row(what=f"peak memory of worker {number}, {engine.name}", value=size / 2**20, unit="MiB")
            for engine in engines
            for number, size in enumerate(engine.peak_bytes(), 1)
        ]


def _compared(name: str, engines: Sequence[Engine], options: argparse.Namespace) -> list[Row]:
    """Rows of ours against every peer asked for; the first turn of ours only warms up."""
    measure = _measure(name)
    measure.of(engines[0])
    figures: dict[str, list[float]] = {engine.name: [] for engine in engines}
    for _ in range(options.repeat):
        for engine in engines:
            figures[engine.name].append(measure.of(engine))
            print(f"{name}: {engine.name} {figures[engine.name][-1]:.4g} {measure.unit}", file=sys.stderr)
    medians = {engine: statistics.median(values) for engine, values in figures.items()}
    return [
        against(
            name,
            medians[engines[0].name],
            measure.unit,
            PEERS[peer],
            medians.get(PEERS[peer]),
            more_is_better=measure.more_is_better,
        )
        for peer in options.peer
    ]


def _alone(what: str, unit: str, value: float, peer: Callable[[], float], options: argparse.Namespace) -> Row:
    """A row against llama.cpp RPC for what takes no turns."""
    try:
        figure: float | None = statistics.median(peer() for _ in range(options.repeat if unit == "s" else 1))
    except MissingError as missing:
        print(f"missing peer, its rows have no ratio: {missing}", file=sys.stderr)
        figure = None
    return against(what, value, unit, llama_rpc.NAME, figure, more_is_better=False)


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench engine")
    parser.add_argument("--only", choices=ONLY, action="append", help="may repeat; all")
    parser.add_argument("--repeat", type=int, default=5, help="turns of each engine")
    parser.add_argument("--peer", choices=tuple(PEERS), action="append", help="may repeat; all")
    parser.add_argument("overrides", nargs="*", help="of ours, behind --")
    options = parser.parse_args(args)
    options.only, options.peer = options.only or ONLY, options.peer or list(PEERS)
    return options
