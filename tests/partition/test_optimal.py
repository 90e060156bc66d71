"""partition=optimal against every possible chain, against its own bounds, and against the simpler strategies."""

from dataclasses import replace

import numpy as np
import pytest

from hyperlane.artifacts import HANDOFF_S, Cluster, LinkInfo, WorkerInfo
from hyperlane.errors import PlanError
from hyperlane.partition import Cut, Range
from hyperlane.partition.costs import BESIDE_S, StepKind, step_costs
from hyperlane.partition.knapsack import Knapsack
from hyperlane.partition.memory import Workload
from hyperlane.partition.optimal import Objective, Optimal, Placing
from hyperlane.partition.predict import predict
from hyperlane.partition.problem import Chain
from hyperlane.partition.rates import layers_s, speed_of_rates
from hyperlane.partition.subsets import best_chain
from hyperlane.partition.uniform import Uniform
from hyperlane.partition.walks import Effort, search
from tests.partition.brute import least_value
from tests.partition.clusters import WEIGHTS, racks, shapes
from tests.partition.instances import hall, small_goal

WORKLOAD = Workload(slots=8, context=4096, prefill_chunk=256, prompt_tokens=1024, codecs=("raw", "h8", "int4"))
MODEL = shapes(24, 4096, 2e8)


@pytest.mark.parametrize("seed", range(8))
def test_the_exact_search_equals_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(6):
        goal = small_goal(rng, int(rng.integers(1, 5)), int(rng.integers(1, 9)), int(rng.integers(1, 4)), seed % 3)
        found = goal.best(best_chain, 10_000)
        value = np.inf if found.chain is None else goal.value(found.chain)
        assert value == pytest.approx(least_value(goal), rel=1e-9)
        assert found.chain is None or found.bound == pytest.approx(value, rel=1e-9)
        assert found.chain is None or goal.problem.allows(found.chain)


@pytest.mark.parametrize("seed", range(6))
def test_walks_give_chains_that_fit_and_bounds_that_hold(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    for _ in range(5):
        goal = small_goal(rng, 4, 8, 2, 1)
        cap = float(rng.choice([np.inf, 8.0]))
        best, found = best_chain(goal.problem, [cap]), search(goal.problem, [cap], Effort(rounds=30))
        assert found.bound <= best.bound * (1 + 1e-9)
        if found.chain is not None:
            assert goal.problem.allows(found.chain)
            assert goal.problem.bottlenecks[0].of(found.chain) <= cap * (1 + 1e-9)
            assert goal.problem.total.of(found.chain) >= best.bound * (1 - 1e-9)


def test_many_workers_come_close_to_their_bound() -> None:
    problem = replace(hall(np.random.default_rng(1), 200, 60, 40.0), bottlenecks=())
    found = search(problem, [], Effort(seconds=20))
    assert found.chain is not None
    assert problem.allows(found.chain)
    assert problem.total.of(found.chain) <= 1.05 * found.bound


@pytest.mark.parametrize("objective", Objective)
@pytest.mark.parametrize("workers", [5, 40])
def test_it_is_never_worse_than_the_simple_strategies(objective: Objective, workers: int) -> None:
    cluster = racks(np.random.default_rng(workers), workers, 0.1)
    settings = Optimal(objective=objective, seconds=1.0)
    found = settings.cut(MODEL, cluster, WORKLOAD)
    placing = Placing(settings, MODEL, cluster, WORKLOAD)
    assert found.objective is not None
    assert found.bound is not None
    assert found.bound <= found.objective
    for simple in (Uniform(), Knapsack()):
        try:
            chain = _chain(cluster, simple.cut(MODEL, cluster, WORKLOAD))
        except PlanError:
            continue
        if all(placing.room.fits(*span) for span in chain.spans()):
            assert found.objective <= placing.value(chain) * (1 + 1e-9)


def _chain(cluster: Cluster, cut: Cut) -> Chain:
    names = [worker.name for worker in cluster.workers]
    workers = tuple(names.index(item.worker) for item in cut.ranges)
    return Chain(workers, tuple(item.stop for item in cut.ranges), (0,) * (len(workers) - 1))


def worker(name: str, bytes_per_s: float, **more: float) -> WorkerInfo:
    size = int(more.get("memory", 64e9))
    return WorkerInfo(
        name=name,
        device="cpu",
        memory_total_bytes=size,
        memory_free_bytes=size,
        control_address="",
        data_addresses=(),
        latency_s=2e-4,
        speeds=(speed_of_rates(WEIGHTS, bytes_per_s, 3 * bytes_per_s, 1e-4),),
        share=more.get("share", 1.0),
    )


def test_a_lone_stream_stays_on_the_fastest_worker_that_holds_it() -> None:
    cluster = Cluster(workers=(worker("fast", 1e11), worker("slow", 1e10)))
    assert Optimal().cut(MODEL, cluster, WORKLOAD).ranges == (Range("fast", 0, 24),)


def test_throughput_spreads_layers_by_speed() -> None:
    cluster = Cluster(workers=(worker("fast", 3e10), worker("slow", 1e10)))
    ranges = Optimal(objective=Objective.throughput).cut(MODEL, cluster, WORKLOAD).ranges
    layers = {item.worker: item.stop - item.start for item in ranges}
    assert 2 < layers["fast"] / layers["slow"] < 6


def test_a_worker_behind_a_hopeless_link_is_left_out() -> None:
    slow = tuple(
        LinkInfo(source=a, target=b, latency_s=2.0, bytes_per_s=1e3)
        for a, b in (("a", "c"), ("c", "a"), ("b", "c"), ("c", "b"))
    )
    cluster = Cluster(workers=(worker("a", 1e10), worker("b", 1e10), worker("c", 1e10)), links=slow)
    for objective in Objective:
        ranges = Optimal(objective=objective).cut(MODEL, cluster, WORKLOAD).ranges
        assert "c" not in {item.worker for item in ranges} or len(ranges) == 1


def test_a_quota_counts_where_it_holds_a_worker_up() -> None:
    cluster = Cluster(workers=(worker("free", 1e10), worker("held", 1e10, share=0.25)))
    alone = Optimal().cut(MODEL, cluster, WORKLOAD)
    assert alone.ranges == (Range("free", 0, 24),)
    ranges = Optimal(objective=Objective.throughput).cut(MODEL, cluster, WORKLOAD).ranges
    layers = {item.worker: item.stop - item.start for item in ranges}
    assert layers["free"] > 3 * layers["held"]


def test_what_fits_nowhere_says_what_is_lacking() -> None:
    with pytest.raises(PlanError, match=r"does not fit: it needs .* GiB"):
        Optimal().cut(MODEL, Cluster(workers=(worker("tiny", 1e10, memory=1e9),)), WORKLOAD)


def test_a_prediction_adds_up() -> None:
    cluster = Cluster(
        workers=(worker("a", 1e10), worker("b", 1e10)),
        links=(LinkInfo(source="a", target="b", latency_s=0.01, bytes_per_s=1e6),),
    )
    workload = replace(WORKLOAD, slots=1, codecs=("raw",))
    predicted = predict(MODEL, cluster, workload, (Range("a", 0, 12), Range("b", 12, 24)))
    first, second = predicted.stages
    layers = layers_s(MODEL, cluster.workers[0].speeds[0], "decode", 1, workload.past)
    assert first.decode_s == pytest.approx(layers[:12].sum() + 1e-4)
    assert first.wire_s == pytest.approx(0.01 + HANDOFF_S + (4096 * 2 + 120) / 1e6)
    assert predicted.compute_s == pytest.approx(first.decode_s + second.decode_s)
    assert predicted.step_s == pytest.approx(predicted.compute_s + predicted.wire_s)
    assert predicted.tokens_per_s == pytest.approx(1 / predicted.step_s)


def test_a_workers_other_threads_live_on_its_quota_too() -> None:
    cluster = Cluster(workers=(worker("free", 1e10), worker("held", 1e10, share=0.25)))
    costs = step_costs(MODEL, cluster, ("raw",), StepKind(True, 1, 64))
    free, held = (costs.bottleneck.stages.of(number, 0, 12) for number in range(2))
    assert free == pytest.approx(costs.stages.of(0, 0, 12))
    assert held == pytest.approx((costs.stages.of(1, 0, 12) + BESIDE_S) / 0.25)
