"""As many layers for each worker, in the order of their names; the first workers take what does not divide."""

from dataclasses import dataclass

from hyperlane.artifacts import Cluster, ModelSpec
from hyperlane.partition import Cut, Range
from hyperlane.partition.memory import Workload


@dataclass(kw_only=True, slots=True)
class Uniform:
    reserve: float = 0.1

    def cut(self, model: ModelSpec, cluster: Cluster, workload: Workload) -> Cut:
        workers = cluster.workers
        used = min(len(workers), model.layers)
        share, rest = divmod(model.layers, used)
        ranges, start = [], 0
        for index, worker in enumerate(workers[:used]):
            stop = start + share + (index < rest)
            ranges.append(Range(worker.name, start, stop))
            start = stop
        return Cut(ranges=tuple(ranges))
