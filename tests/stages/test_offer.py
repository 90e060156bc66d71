"""A worker that was slower than predicted: a new plan is offered where it would be better."""

from dataclasses import replace

from hyperlane.artifacts import Accuracy, Cluster, StageAccuracy
from hyperlane.compose import compose
from hyperlane.stages.offer import offer
from tests.partition.clusters import shapes
from tests.partition.planned import planned
from tests.partition.test_optimal import worker

MODEL = shapes(24, 4096, 2e8)
CLUSTER = Cluster(workers=(worker("a", 2e10), worker("b", 1.9e10)))
CONFIG = compose("tiny", ["cluster=simulated", "partition=optimal", "transport/codec=raw"])
PLAN = planned(CONFIG, MODEL, CLUSTER, 64)


def took(times: float) -> Accuracy:
    """A run in which worker a took `times` what was predicted."""
    stage = StageAccuracy(
        worker="a",
        phase="decode",
        steps=100,
        compute_predicted_s=0.1,
        compute_measured_s=0.1 * times,
        wire_predicted_s=0.0,
        wire_measured_s=0.0,
    )
    return Accuracy(
        requests=1,
        step_predicted_s=0.1,
        step_measured_s=0.1 * times,
        compute_predicted_s=0.1,
        compute_measured_s=0.1 * times,
        ttft_predicted_s=1.0,
        ttft_measured_s=1.0,
        stages=(stage,),
    )


def test_a_slow_worker_is_named_with_the_plan_that_does_without() -> None:
    said = offer(PLAN, CLUSTER, took(2.0), CONFIG)
    assert said is not None
    assert "a took 2 times" in said
    assert "b 0:24" in said


def test_nothing_is_offered_where_nothing_would_be_won() -> None:
    assert [p.worker for p in PLAN.placements] == ["a"]
    assert offer(PLAN, CLUSTER, took(1.4), CONFIG) is None  # below the threshold
    off = compose("tiny", ["cluster=simulated", "partition=optimal", "transport/codec=raw", "replan.mode=off"])
    assert offer(PLAN, CLUSTER, took(2.0), off) is None
    slower = replace(CLUSTER, workers=(CLUSTER.workers[0], worker("b", 5e9)))
    assert offer(PLAN, slower, took(2.0), CONFIG) is None  # b would be slower still
    uniform = compose("tiny", ["cluster=simulated", "partition=uniform"])
    assert offer(PLAN, CLUSTER, took(2.0), uniform) is None
