"""Fill the workers one after another, the one with most memory first; workers that are not needed are left out.

Fewer workers means fewer hops: the right choice when memory binds and links are slow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hyperlane.artifacts import Cluster, ModelSpec, WorkerInfo
from hyperlane.errors import PlanError
from hyperlane.partition import Cut, Range, usable_bytes
from hyperlane.partition.memory import Workload, activation_bytes, kv_bytes, weight_bytes


@dataclass(kw_only=True, slots=True)
class Knapsack:
    reserve: float = 0.1

    def cut(self, model: ModelSpec, cluster: Cluster, workload: Workload) -> Cut:
        workers = cluster.workers
        ranges: list[Range] = []
        start = 0
        for worker in sorted(workers, key=_largest_first):
            if start == model.layers:
                break
            stop = _furthest(model, start, usable_bytes(worker, self.reserve), workload)
            if stop > start:
                ranges.append(Range(worker.name, start, stop))
                start = stop
        if start < model.layers:
            raise PlanError(_does_not_fit(model, workers, workload, start, self.reserve))
        return Cut(ranges=tuple(ranges))


def _largest_first(worker: WorkerInfo) -> tuple[int, str]:
    # Free memory moves by megabytes from run to run; whole GiB of total memory keep the order, and so the plan, steady.
    return -(worker.memory_total_bytes >> 30), worker.name


def _furthest(model: ModelSpec, start: int, room_bytes: int, workload: Workload) -> int:
    """The largest stop such that layers start:stop fit into `room_bytes`; `start` where none fits."""
    fitting = [stop for stop in range(start + 1, model.layers + 1) if _need(model, start, stop, workload) <= room_bytes]
    return max(fitting, default=start)


def _need(model: ModelSpec, start: int, stop: int, workload: Workload) -> int:
    kept = weight_bytes(model, start, stop) + kv_bytes(model, start, stop, workload)
    return kept + activation_bytes(model, stop == model.layers, workload)


def _does_not_fit(
    model: ModelSpec, workers: Sequence[WorkerInfo], workload: Workload, placed: int, reserve: float
) -> str:
    need = _need(model, 0, model.layers, workload)
    has = ", ".join(f"{worker.name} {usable_bytes(worker, reserve) / 2**30:.2f} GiB" for worker in workers)
    return (
        f"{model.source} does not fit: it needs {need / 2**30:.2f} GiB and the workers have {has}; {placed} of "
        f"{model.layers} layers placed; add workers, or lower quantization, generate.slots or generate.context"
    )
