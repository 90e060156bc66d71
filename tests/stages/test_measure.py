"""Each worker is timed on the graph that it will run."""

from dataclasses import replace
from typing import Any, cast

import trio

from hyperlane.artifacts import WorkerInfo
from hyperlane.compose import compose
from hyperlane.stages import measure
from hyperlane.stages.context import Context
from hyperlane.stages.kinds import GraphKind
from hyperlane.worker.operators import OPERATORS_VERSION
from tests.fixtures_model import Exported
from tests.partition.test_partition import cluster

OWN, PLAIN = (
    replace(worker, operators=version)
    for worker, version in zip(cluster(500, 500).workers, (OPERATORS_VERSION, 0), strict=True)
)


class _Context:
    def __init__(self, exported: Exported, quantization: str) -> None:
        self.store, self._checkpoint = exported.store, exported.checkpoint
        self.config = compose(
            "tiny", [f"quantization={quantization}", "generate.context=64", "generate.prefill_chunk=16"]
        )

    async def checkpoint(self) -> Any:
        return self._checkpoint


def probes(exported: Exported, *workers: WorkerInfo, quantization: str = "none") -> dict[GraphKind, measure.Probes]:
    found, _ = trio.run(measure._probes, cast(Context, _Context(exported, quantization)), workers)
    return found


def test_a_mixed_cluster_is_timed_on_two_kinds_of_graphs(tiny: Exported) -> None:
    found = probes(tiny, OWN, PLAIN)
    own, plain = found[GraphKind("float32", True)], found[GraphKind("float32", False)]
    assert len(found) == 2
    assert [(layers, probe.cases) for layers, probe in own] == [(layers, probe.cases) for layers, probe in plain]
    assert all(b"hyperlane" in probe.graph for _, probe in own)
    assert not any(b"hyperlane" in probe.graph for _, probe in plain)


def test_a_gpu_is_timed_in_fp16(tiny: Exported) -> None:
    found = probes(tiny, OWN, replace(PLAIN, device="cuda:0"), quantization="int8")
    assert {probe.dtype for _, probe in found[GraphKind("float16", False)]} == {"float16"}
    assert {probe.dtype for _, probe in found[GraphKind("float32", True)]} == {"float32"}


def test_a_gpu_with_weights_as_they_are_is_timed_in_pieces_of_fp32(tiny: Exported) -> None:
    gpu = replace(PLAIN, device="cuda:0")
    ((kind, found),) = probes(tiny, gpu).items()
    assert kind == GraphKind("float32", False, fused=False)
    assert not any(b"GroupQueryAttention" in probe.graph for _, probe in found)
