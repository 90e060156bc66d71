"""As much arithmetic for each worker, in the order of their names: the last one has the head to compute too.

With lanes full the slowest worker sets the pace, and a small model's head outweighs several of its layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from hyperlane.artifacts import Cluster, ModelSpec
from hyperlane.partition import Cut, Range
from hyperlane.partition.memory import Workload

ATTENTION_COST = 4
"""What a product of attention takes of a CPU, in products with quantized weights."""
CHANNEL_COST = 1000
"""What norms, rounding and rotation take for each channel of a layer, in such products."""


@dataclass(kw_only=True, slots=True)
class Balanced:
    reserve: float = 0.1

    def cut(self, model: ModelSpec, cluster: Cluster, workload: Workload) -> Cut:
        used = min(len(cluster.workers), model.layers)
        bounds = balanced_bounds(_layer_costs(model, workload), model.head_products, used)
        names = [worker.name for worker in cluster.workers[:used]]
        return Cut(ranges=tuple(Range(name, *pair) for name, pair in zip(names, pairwise(bounds), strict=True)))


def balanced_bounds(layers: Sequence[int], head: int, parts: int) -> list[int]:
    """Where to cut such that the largest part is smallest, and the others are near each other; none is empty."""
    total = [0, *accumulate(layers)]
    best = {0: (0, 0, [0])}  # stop -> largest part, sum of squares, bounds
    for part in range(1, parts + 1):
        last = part == parts
        stops = [len(layers)] if last else range(part, len(layers) - parts + part + 1)
        longer = {}
        for stop in stops:
            options = []
            for start, (largest, squares, bounds) in best.items():
                if start < stop:
                    size = total[stop] - total[start] + (head if last else 0)
                    options.append((max(largest, size), squares + size * size, [*bounds, stop]))
            longer[stop] = min(options, key=lambda option: (option[0], option[1], [-bound for bound in option[2]]))
        best = longer
    return best[len(layers)][2]


def _layer_costs(model: ModelSpec, workload: Workload) -> Sequence[int]:
    """Of a row in a full lane: a layer does more than its products with weights, the head hardly."""
    if not model.layer_products:
        return (1,) * model.layers
    beside = model.hidden_size * (CHANNEL_COST + ATTENTION_COST * 2 * workload.past)
    return [products + beside for products in model.layer_products]
