"""As many layers for each worker, in the order of their names; the first workers take what does not divide."""

from collections.abc import Sequence
from dataclasses import dataclass

from hyperlane.artifacts import ModelSpec, WorkerInfo
from hyperlane.partition import Range
from hyperlane.partition.memory import Workload


@dataclass(kw_only=True, slots=True)
class Uniform:
    reserve: float = 0.1

    def ranges(self, model: ModelSpec, workers: Sequence[WorkerInfo], workload: Workload) -> tuple[Range, ...]:
        used = min(len(workers), model.layers)
        share, rest = divmod(model.layers, used)
        ranges, start = [], 0
        for index, worker in enumerate(workers[:used]):
            stop = start + share + (index < rest)
            ranges.append(Range(worker.name, start, stop))
            start = stop
        return tuple(ranges)
