"""The same shards in one process, without links: what transport is measured against."""

import itertools
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.artifacts import Manifest
from hyperlane.model.assemble import assemble
from hyperlane.model.store import LayerStore
from hyperlane.transport.frame import Run
from hyperlane.worker.gpu import on_host
from hyperlane.worker.operators import GPU_OPERATORS_VERSION, operators_version
from hyperlane.worker.result import StepResult
from hyperlane.worker.session import Session


def is_fused(manifest: Manifest, device: str) -> bool:
    """Whether attention can be one operator there: in FP32 on a GPU it cannot."""
    return manifest.dtype == "float16" or not device.startswith("cuda")


def graph_choices(manifest: Manifest, device: str) -> dict[str, bool]:
    """How a shard for this device is assembled."""
    half = manifest.dtype == "float16" and os.environ.get("HYPERLANE_BENCH_OPERATORS", "1") == "1"
    on_gpu = half and operators_version(device) == GPU_OPERATORS_VERSION
    return {"fused": is_fused(manifest, device), "on_gpu": on_gpu}


class BareChain:
    """Shards one behind another. Between two on one GPU hidden states stay there."""

    def __init__(
        self,
        manifest: Manifest,
        store: LayerStore,
        bounds: Sequence[int],
        device: str,
        *,
        slots: int,
        context: int,
        graphs: bool = True,
    ) -> None:
        self._shards = []
        for start, stop in itertools.pairwise(bounds):
            graph: Path = store.path(
                store.put(assemble(manifest, store, start, stop, **graph_choices(manifest, device))).sha256
            )
            self._shards.append(Session(graph, slots=slots, context=context, threads=4, device=device, graphs=graphs))

    def step(self, runs: Sequence[Run], ids: Sequence[int], want_logits: bool = False) -> StepResult:
        result = self._shards[0].run(runs, np.asarray(ids, np.int64), want_logits)
        for shard in self._shards[1:]:
            assert result.hidden_RD is not None
            result = shard.run(runs, result.hidden_RD, want_logits)
        return result

    def hidden(self, ids: Sequence[int]) -> NDArray[Any]:
        """What leaves the first shard for a prompt: [R, D]."""
        result = self._shards[0].run([Run(0, 1, 0, len(ids))], np.asarray(ids, np.int64))
        assert result.hidden_RD is not None
        return on_host(result.hidden_RD)

    def assume(self, past: int) -> None:
        for shard in self._shards:
            shard.assume(past)

    def close(self) -> None:
        for shard in self._shards:
            shard.close()


def decode_s(chain: BareChain, rows: int, past: int, steps: int, first: int = 0) -> float:
    """Seconds of a step of `rows` sequences from slot `first`, the median."""
    chain.assume(past)
    ids, ends_s = [7] * rows, []
    for position in range(past, past + steps):
        result = chain.step([Run(first + row, 1, position, 1) for row in range(rows)], ids)
        assert result.ids_NK is not None
        ids = result.ids_NK[:, 0].tolist()
        ends_s.append(time.perf_counter())
    return float(np.median(np.diff(ends_s[steps // 4 :])))


def prefill_s(chain: BareChain, tokens: int, chunk: int, vocab: int, repeats: int = 5) -> float:
    """Seconds until the first token of a prompt in slot 0, the median."""
    ids = np.random.default_rng(6).integers(0, vocab, tokens).tolist()
    times_s = []
    for _ in range(repeats + 1):
        begin_s = time.perf_counter()
        for at in range(0, tokens, chunk):
            part = ids[at : at + chunk]
            chain.step([Run(0, int(at + chunk >= tokens), at, len(part))], part)
        times_s.append(time.perf_counter() - begin_s)
    return float(np.median(times_s[1:]))
