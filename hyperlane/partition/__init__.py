"""Strategies that cut a model into one contiguous range of layers a worker: pure functions of sizes.

Each choice is a dataclass of its settings with `cut`; `place` turns its answer into counted placements, so that no
strategy can forget to count the KV cache or to check that a shard fits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hyperlane.artifacts import Cluster, ModelSpec, Placement, WorkerInfo
from hyperlane.errors import PlanError
from hyperlane.partition.memory import Workload, activation_bytes, kv_bytes, weight_bytes


@dataclass(frozen=True, slots=True)
class Range:
    """Layers `start` to `stop` (half-open) on `worker`."""

    worker: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A strategy's answer: ranges in chain order. `codecs`, one a link, where it chose them."""

    ranges: tuple[Range, ...]
    codecs: tuple[str, ...] = ()
    objective: float | None = None  # what it minimized
    bound: float | None = None  # what no placement is below


class Partition(Protocol):
    """A strategy. `reserve` is the share of a worker's memory that stays free."""

    reserve: float

    def cut(self, model: ModelSpec, cluster: Cluster, workload: Workload) -> Cut:
        """Contiguous ranges that cover the model once, in chain order; PlanError where that is impossible."""
        ...


def place(strategy: Partition, model: ModelSpec, cluster: Cluster, workload: Workload) -> tuple[Placement, ...]:
    """The strategy's ranges with their memory counted; PlanError where one does not fit its worker."""
    return count(strategy, cut(strategy, model, cluster, workload), model, cluster, workload)


def cut(strategy: Partition, model: ModelSpec, cluster: Cluster, workload: Workload) -> Cut:
    """The strategy's answer; PlanError where there is none."""
    if not 0 <= strategy.reserve < 1:
        raise PlanError(f"partition.reserve={strategy.reserve} is no share; give 0 or more and less than 1")
    if model.layers < 1:
        raise PlanError(f"{model.source} has {model.layers} layers; there is nothing to place")
    found = strategy.cut(model, cluster, workload)
    check_cover(found.ranges, model.layers)
    return found


def count(
    strategy: Partition, found: Cut, model: ModelSpec, cluster: Cluster, workload: Workload
) -> tuple[Placement, ...]:
    """A cut with its memory; PlanError where a shard does not fit its worker."""
    placements = tuple(_count(item, model, workload) for item in found.ranges)
    _check_fit(placements, model, cluster, strategy.reserve)
    return placements


def check_cover(ranges: Sequence[Range], layers: int) -> None:
    """Every layer once, in order, no worker empty or named twice."""
    expected = 0
    for item in ranges:
        if item.start != expected or item.stop <= item.start:
            raise PlanError(f"layers {item.start}:{item.stop} of {item.worker} do not continue at layer {expected}")
        expected = item.stop
    if expected != layers:
        raise PlanError(f"the ranges end at layer {expected}, the model has {layers}")
    names = [item.worker for item in ranges]
    if len(set(names)) != len(names):
        raise PlanError(f"a worker is named twice in {names}; it can hold one range")


def usable_bytes(worker: WorkerInfo, reserve: float) -> int:
    """What a plan may count on: free memory less the reserve."""
    return int(min(worker.memory_free_bytes, worker.memory_total_bytes) * (1 - reserve))


def _count(item: Range, model: ModelSpec, workload: Workload) -> Placement:
    return Placement(
        worker=item.worker,
        start=item.start,
        stop=item.stop,
        weight_bytes=weight_bytes(model, item.start, item.stop),
        kv_bytes=kv_bytes(model, item.start, item.stop, workload),
        activation_bytes=activation_bytes(model, item.stop == model.layers, workload),
    )


def _check_fit(placements: Sequence[Placement], model: ModelSpec, cluster: Cluster, reserve: float) -> None:
    usable = {worker.name: usable_bytes(worker, reserve) for worker in cluster.workers}
    if all(p.memory_bytes <= usable[p.worker] for p in placements):
        return
    shares = "; ".join(
        f"{p.worker} needs {_gib(p.memory_bytes)} for layers {p.start}:{p.stop} and has {_gib(usable[p.worker])}"
        for p in placements
    )
    raise PlanError(
        f"{model.source} does not fit: {shares} (weights + KV + activations against free memory less "
        f"partition.reserve={reserve:g}); add workers, take partition=knapsack, which fills the "
        "largest first, or lower quantization, generate.slots or generate.context"
    )


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.2f} GiB"
