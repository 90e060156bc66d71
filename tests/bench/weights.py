"""What each choice of `quantization` costs and gives: perplexity, KL, agreement with FP32, size and speed.

SmolLM2-135M in two shards, one after another on one thread, nothing sent; all choices take turns, and the figures
are medians. Choices come from conf/quantization.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from hyperlane.compose import compose, conf_dir
from hyperlane.config import Config
from hyperlane.model.export import export
from hyperlane.model.source import resolve
from hyperlane.model.store import LayerStore
from hyperlane.transport.frame import Run
from hyperlane.worker.session import Session
from tests.bench.row import Row, compared
from tests.bench.teacher import quality, shards

EXACT = "none"
ROWS, PREFILL, PROMPT, STEPS, CONTEXT = (1, 8, 16), 512, 16, 24, 640


def run(args: Sequence[str]) -> list[Row]:
    options = _parse(args)
    rows: list[Row] = []
    if options.only != "speed":
        rows += [row for name in options.quantization for row in _quality(name, options.overrides)]
    if options.only != "quality":
        rows += _speeds(options.quantization, options.repeat, options.overrides)
    return rows


def _parse(args: Sequence[str]) -> argparse.Namespace:
    choices = sorted(path.stem for path in (conf_dir() / "quantization").glob("*.yaml"))
    parser = argparse.ArgumentParser(prog="python -m tests.bench weights")
    parser.add_argument("--quantization", choices=choices, action="append", help="may repeat; all")
    parser.add_argument("--only", choices=("quality", "speed"))
    parser.add_argument("--repeat", type=int, default=5, help="turns of each choice")
    parser.add_argument("overrides", nargs="*", help="behind --, such as generate.kv_cache=int8")
    options = parser.parse_args(args)
    options.quantization = options.quantization or choices
    return options


def _config(name: str, overrides: Sequence[str]) -> Config:
    return compose("smollm2_135m", [f"quantization={name}", *overrides])


def _quality(name: str, overrides: Sequence[str]) -> list[Row]:
    config = _config(name, overrides)
    exported = export(resolve(config.model.source), LayerStore(config.store.path), "float32", config.quantization)
    found = quality(config)
    print(f"{name}: agreement {found.agreement:.4f}", file=sys.stderr)
    return [
        Row(what=f"{name} size", value=sum(part.weights.bytes for part in exported.parts) / 2**20, unit="MiB"),
        compared(f"{name} perplexity", found.perplexity, "", found.exact_perplexity),
        Row(what=f"{name} KL", value=found.mean_kl, unit="nats"),
        Row(what=f"{name} agreement", value=100 * found.agreement, unit="%"),
    ]


@dataclass(frozen=True, slots=True)
class _Timed:
    """One choice's loaded shards, and its figures so far by what was measured."""

    name: str
    chain: Sequence[Session]
    figures: dict[str, list[float]]

    def turn(self) -> None:
        for count in ROWS:
            self._take(f"decode of {count}", _decode_s(self.chain, count))
        begun_s = time.perf_counter()
        _step(self.chain, [Run(slot=0, outputs=1, position=0, count=PREFILL)])
        self._take(f"prefill {PREFILL}", time.perf_counter() - begun_s)

    def _take(self, what: str, seconds: float) -> None:
        self.figures.setdefault(what, []).append(seconds)

    def rows(self) -> list[Row]:
        found = {what: statistics.median(seconds) for what, seconds in self.figures.items()}
        prefill_s = found.pop(f"prefill {PREFILL}")
        steps = [Row(what=f"{self.name} {what}", value=1e3 * seconds, unit="ms") for what, seconds in found.items()]
        return [*steps, Row(what=f"{self.name} prefill {PREFILL}", value=PREFILL / prefill_s, unit="tok/s")]


def _speeds(names: Sequence[str], repeat: int, overrides: Sequence[str]) -> list[Row]:
    with ExitStack() as exits:
        timed = [exits.enter_context(_open(name, overrides)) for name in names]
        for one in timed:
            one.turn()  # prepares each shape of call
            one.figures.clear()
        for _ in range(repeat):
            for one in timed:
                one.turn()
        return [row for one in timed for row in one.rows()]


@contextmanager
def _open(name: str, overrides: Sequence[str]) -> Iterator[_Timed]:
    config = _config(name, overrides)
    with shards(resolve(config.model.source), config, slots=max(ROWS), context=CONTEXT) as chain:
        yield _Timed(name, chain, {})


def _decode_s(chain: Sequence[Session], count: int) -> float:
    """Median seconds of a step of `count` rows behind a short prompt each."""
    for slot in range(count):
        _step(chain, [Run(slot=slot, outputs=1, position=0, count=PROMPT)])
    times = []
    for step in range(STEPS):
        runs = [Run(slot=slot, outputs=1, position=PROMPT + step, count=1) for slot in range(count)]
        begun_s = time.perf_counter()
        _step(chain, runs)
        times.append(time.perf_counter() - begun_s)
    return statistics.median(times)


def _step(chain: Sequence[Session], runs: Sequence[Run]) -> None:
    rows: Any = np.arange(sum(run.count for run in runs), dtype=np.int64) + 1000
    for session in chain[:-1]:
        rows = session.run(runs, rows).hidden_RD
    chain[-1].run(runs, rows)
