"""A placement that is better by what is known now: pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hyperlane.artifacts import Cluster, ModelSpec, Placement
from hyperlane.errors import PlanError
from hyperlane.partition import Cut, Range, cut
from hyperlane.partition.memory import Workload
from hyperlane.partition.optimal import Optimal, Placing


@dataclass(frozen=True, slots=True)
class Better:
    """`gain`: the share of the objective that it saves."""

    found: Cut
    gain: float

    def __str__(self) -> str:
        layers = ", ".join(f"{item.worker} {item.start}:{item.stop}" for item in self.found.ranges)
        return f"{layers}, should be {100 * self.gain:.0f} % better"


def better(
    strategy: Optimal,
    model: ModelSpec,
    cluster: Cluster,
    workload: Workload,
    placements: Sequence[Placement],
    gain: float,
) -> Better | None:
    """None where no placement saves more than the share `gain` of what `placements` take."""
    try:
        found = cut(strategy, model, cluster, workload)
    except PlanError:
        return None
    old = tuple(Range(p.worker, p.start, p.stop) for p in placements)
    if found.ranges == old or found.objective is None:
        return None
    placing = Placing(strategy, model, cluster, workload)
    saved = 1 - found.objective / placing.value(placing.chain_of(old))
    return Better(found, saved) if saved > gain else None


def slowed(cluster: Cluster, times: Mapping[str, float]) -> Cluster:
    """`cluster` where workers take so many times what was thought, by worker."""
    workers = tuple(
        replace(
            worker,
            decode_factor=worker.decode_factor * times.get(worker.name, 1.0),
            prefill_factor=worker.prefill_factor * times.get(worker.name, 1.0),
        )
        for worker in cluster.workers
    )
    return replace(cluster, workers=workers)
