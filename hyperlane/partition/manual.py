"""The split that the user writes down: `partition.layers=[15,15]`, and optionally the workers' names in chain order."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hyperlane.artifacts import Cluster, ModelSpec
from hyperlane.errors import PlanError
from hyperlane.partition import Cut, Range
from hyperlane.partition.memory import Workload


@dataclass(kw_only=True, slots=True)
class Manual:
    layers: list[int] = field(default_factory=list)
    workers: list[str] = field(default_factory=list)
    reserve: float = 0.1

    def cut(self, model: ModelSpec, cluster: Cluster, workload: Workload) -> Cut:
        workers = cluster.workers
        names = self.workers or [worker.name for worker in workers]
        self._check(model, {worker.name for worker in workers}, names)
        ranges, start = [], 0
        for name, count in zip(names, self.layers, strict=False):
            ranges.append(Range(name, start, start + count))
            start += count
        return Cut(ranges=tuple(ranges))

    def _check(self, model: ModelSpec, known: set[str], names: Sequence[str]) -> None:
        if any(count < 1 for count in self.layers) or sum(self.layers) != model.layers:
            raise PlanError(
                f"partition.layers={self.layers} must be positive and add up to the model's {model.layers} layers"
            )
        if len(self.layers) > len(names):
            raise PlanError(f"partition.layers={self.layers} needs {len(self.layers)} workers, there are {len(names)}")
        unknown = [name for name in names if name not in known]
        if unknown:
            raise PlanError(f"partition.workers names {unknown[0]}, which was not found; there are {sorted(known)}")
