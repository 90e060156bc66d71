"""A worker times a model's own layers before it holds any of them."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hyperlane.control.messages import compute_from_message, compute_to_message, probe_from_message, probe_to_message
from hyperlane.control.types import Probe, ShardSpec, StepCase
from hyperlane.model.probe import probe_graphs
from hyperlane.model.source import resolve
from hyperlane.model.store import LayerStore
from hyperlane.quantization.int8 import Int8
from hyperlane.transport.frame import Run
from hyperlane.worker.session import Session
from hyperlane.worker.speed import measure_compute

ARCHITECTURE = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 260,
    "max_position_embeddings": 128,
}
CASES = (StepCase(phase="decode", rows=2, past=8), StepCase(phase="prefill", rows=16, past=0))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LayerStore:
    return LayerStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def probes(store: LayerStore) -> tuple[Probe, ...]:
    checkpoint = resolve("random", None, ARCHITECTURE, 0, store)
    return tuple(
        Probe(
            graph=graph.graph,
            weights=graph.weights,
            last=graph.last,
            dtype="float32",
            width=64,
            context=32,
            cases=CASES,
            codecs=("raw", "h8"),
            codec_rows=(1, 16),
        )
        for graph in probe_graphs(checkpoint, store, "float32", Int8(), operators=True, kv_bits=16)
    )


def open_session(path: Path, spec: ShardSpec) -> Session:
    return Session(path, slots=spec.slots, context=spec.context, threads=1)


def test_all_probes_load_and_run(probes: tuple[Probe, ...], tmp_path: Path) -> None:
    assert [probe.last for probe in probes] == [False, False, True]
    for probe in probes:
        speed = measure_compute(probe, open_session, LayerStore(tmp_path), device="cpu", threads=1)
        assert all(0 < seconds < 5 for seconds in speed.seconds)
        assert [(time.codec, time.rows) for time in speed.codecs] == [("raw", 1), ("raw", 16), ("h8", 1), ("h8", 16)]
        assert speed.cores == os.cpu_count()


def test_what_is_known_is_not_timed_again(probes: tuple[Probe, ...], tmp_path: Path) -> None:
    opened: list[Path] = []

    def counted(path: Path, spec: ShardSpec) -> Session:
        opened.append(path)
        return open_session(path, spec)

    store = LayerStore(tmp_path)
    first = measure_compute(probes[1], counted, store, device="cpu", threads=1)
    again = measure_compute(probes[1], counted, store, device="cpu", threads=1)
    assert again.seconds == first.seconds
    assert len(opened) == 1
    measure_compute(replace(probes[1], cases=CASES[:1]), counted, store, device="cpu", threads=1)
    assert len(opened) == 2
    for path in (tmp_path / "benchmarks").iterdir():
        path.write_text("{}")
    measure_compute(probes[1], counted, store, device="cpu", threads=1)
    assert len(opened) == 3


def test_made_up_weights_give_finite_numbers(probes: tuple[Probe, ...], tmp_path: Path) -> None:
    from hyperlane.transport.frame import Run
    from hyperlane.worker.speed import _spec, _written

    session = open_session(_written(probes[0], tmp_path), _spec(probes[0]))
    result = session.run([Run(0, 1, 0, 3)], np.full((3, 64), 0.5, np.float32))
    assert result.hidden_RD is not None
    assert np.isfinite(result.hidden_RD).all()
    session.close()


def test_probes_and_figures_survive_the_wire(probes: tuple[Probe, ...], tmp_path: Path) -> None:
    assert probe_from_message(probe_to_message(probes[0])) == probes[0]
    speed = measure_compute(probes[1], open_session, LayerStore(tmp_path), device="cpu", threads=1)
    assert compute_from_message(compute_to_message(speed)) == speed


def test_steps_are_timed_beside_others(probes: tuple[Probe, ...], tmp_path: Path) -> None:
    opened: list[Session] = []

    def counted(path: Path, spec: ShardSpec) -> Session:
        opened.append(open_session(path, spec))
        return opened[-1]

    crowded = replace(probes[1], codecs=(), codec_rows=(), at_once=2)
    speed = measure_compute(crowded, counted, LayerStore(tmp_path), device="cpu", threads=1)
    assert len(opened) == 2
    assert all(0 < seconds < 5 for seconds in speed.seconds)
    assert probe_from_message(probe_to_message(crowded)) == crowded


class _SlowAtFirst:
    """A session whose first pass over the cases takes many times as long."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.passes: list[int] = []  # rows of a case, once for each time that it was begun

    def run(self, runs: Sequence[Run], rows: NDArray[np.generic], want_logits: bool) -> object:
        if self.passes[-1:] != [len(rows)]:
            self.passes.append(len(rows))
        for _ in range(50 if len(self.passes) <= len(CASES) else 1):
            result = self._session.run(runs, rows, want_logits)
        return result

    def __getattr__(self, name: str) -> object:
        return getattr(self._session, name)


def test_a_moment_in_which_the_machine_is_slow_is_left_out(probes: tuple[Probe, ...], tmp_path: Path) -> None:
    opened: list[_SlowAtFirst] = []

    def slow(path: Path, spec: ShardSpec) -> _SlowAtFirst:
        opened.append(_SlowAtFirst(open_session(path, spec)))
        return opened[-1]

    usual = measure_compute(probes[1], open_session, LayerStore(tmp_path / "a"), device="cpu", threads=1)
    found = measure_compute(probes[1], slow, LayerStore(tmp_path / "b"), device="cpu", threads=1)  # type: ignore[arg-type]
    assert opened[0].passes == [2, 16] * 3
    assert all(a < 10 * b for a, b in zip(found.seconds, usual.seconds, strict=True))
