"""Random placement problems, small ones of every oddity and large ones like a data hall."""

import numpy as np

from hyperlane.partition.goals import Goal, Period, Sum
from hyperlane.partition.problem import Array, Bottleneck, Problem, Room, Stages, Total


def small_goal(rng: np.random.Generator, workers: int, layers: int, options: int, bottlenecks: int) -> Goal:
    """Unequal workers, layers equal or not, memory tight or not, links slow and asymmetric."""
    problem = _small(rng, workers, layers, options, bottlenecks)
    if bottlenecks == 1 and rng.random() < 0.5:
        return Period(problem)
    return Sum(problem, tuple(rng.random(bottlenecks) * 3))


def _small(rng: np.random.Generator, W: int, L: int, O: int, bottlenecks: int) -> Problem:  # noqa: E741
    same = rng.random() < 0.5

    def stages() -> Stages:
        speed_W = np.exp(rng.normal(0, 1, W))
        layer_L = np.ones(L) if same else rng.random(L) + 0.1
        return Stages(
            layer_WL=speed_W[:, None] * layer_L, step_W=rng.random(W), first_W=rng.random(W), last_W=3 * rng.random(W)
        )

    def links(scale: float) -> Array:
        return np.exp(rng.normal(0, 1.5, (O, W, W))) * scale

    layer_L = np.ones(L) if same else rng.random(L) + 0.5
    has_W = rng.random(W) * layer_L.sum() * rng.choice([0.8, 1.5, 3]) + 1.0
    hops = range(1, W + 1) if rng.random() < 0.7 else range(1, int(rng.integers(2, W + 2)))
    return Problem(
        total=Total(stages=stages(), link_OWW=links(1.0), enter_W=rng.random(W), leave_W=rng.random(W)),
        bottlenecks=tuple(
            Bottleneck(stages=stages(), encode_OW=rng.random((O, W)), decode_OW=rng.random((O, W)), wire_OWW=links(2.0))
            for _ in range(bottlenecks)
        ),
        room=Room(layer_L=layer_L, first=rng.random(), last=rng.random(), any=0.1, has_W=has_W),
        hops=hops,
    )


def hall(rng: np.random.Generator, workers: int, layers: int, fill: float) -> Problem:
    """Racks of 16 with machines of five kinds; together they hold `fill` times the model. Links differ by rack."""
    kind_W = rng.integers(0, 5, workers)
    speed_W = np.array([1, 2, 3, 5, 8])[kind_W] * np.exp(rng.normal(0, 0.1, workers))
    room_W = np.array([8.0, 16, 24, 48, 80])[kind_W]
    room_W = np.maximum(room_W * fill * layers / room_W.sum(), 1.0)
    rack_W = rng.integers(0, max(1, workers // 16), workers)
    near_WW = rack_W[:, None] == rack_W
    link_WW = np.where(near_WW, 0.05, 0.5) * np.exp(rng.normal(0, 0.3, (workers, workers)))
    stages = Stages(
        layer_WL=(1 / speed_W)[:, None] * np.ones(layers),
        step_W=np.full(workers, 0.05),
        first_W=np.full(workers, 0.01),
        last_W=2 / speed_W,
    )
    coding_OW = np.full((1, workers), 0.01)
    ends_W = np.full(workers, 0.1)
    return Problem(
        total=Total(stages=stages, link_OWW=link_WW[None], enter_W=ends_W, leave_W=ends_W),
        bottlenecks=(
            Bottleneck(stages=stages, encode_OW=coding_OW, decode_OW=coding_OW, wire_OWW=0.5 * link_WW[None]),
        ),
        room=Room(layer_L=np.ones(layers), first=1.0, last=1.0, any=0.1, has_W=room_W + 1.2),
        hops=range(1, workers + 1),
    )
