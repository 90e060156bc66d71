"""The stage simulate: chains side by side, requests as they come, and what is said where it cannot be."""

import numpy as np
import pytest

from hyperlane.artifacts import Cluster
from hyperlane.compose import compose
from hyperlane.config import Config
from hyperlane.errors import ConfigError, PlanError
from hyperlane.stages.simulate import simulated
from tests.partition.clusters import racks, shapes
from tests.partition.planned import planned

MODEL = shapes(24, 4096, 2e8)
CLUSTER = racks(np.random.default_rng(3), 6)


def config(*overrides: str) -> Config:
    words = ["cluster=simulated", "partition=optimal", "transport/codec=raw", "simulate.requests=24"]
    return compose("tiny", [*words, "generate.slots=4", *overrides])


def test_more_chains_serve_more() -> None:
    alone, every = config(), config("simulate.replicas=0")
    plan = planned(alone, MODEL, CLUSTER, 256)
    one, all_of_them = simulated(plan, CLUSTER, alone), simulated(plan, CLUSTER, every)
    assert len(one.replicas) == 1
    assert len(all_of_them.replicas) > 1
    assert all_of_them.tokens_per_s > one.tokens_per_s
    assert sum(chain.requests for chain in all_of_them.replicas) == 24
    names = [name for chain in all_of_them.replicas for name in chain.workers]
    assert len(set(names)) == len(names)
    assert all(0 <= share <= 1 for chain in all_of_them.replicas for share in chain.busy)


def test_a_slow_trickle_waits_for_nothing() -> None:
    trickle = config("simulate.rate_per_s=0.01")
    plan = planned(trickle, MODEL, CLUSTER, 256)
    found = simulated(plan, CLUSTER, trickle)
    assert plan.predicted is not None
    assert found.ttft_s == pytest.approx(plan.predicted.ttft_s, rel=0.01)
    assert found.seconds > 1000


def test_what_cannot_be_is_said() -> None:
    plan = planned(config(), MODEL, CLUSTER, 256)
    with pytest.raises(PlanError, match=r"simulate\.replicas=9, but the workers hold"):
        simulated(plan, CLUSTER, config("simulate.replicas=9"))
    with pytest.raises(ConfigError, match=r"raise generate\.context"):
        simulated(plan, CLUSTER, config("simulate.prompt_tokens=5000"))


def test_a_cluster_of_nobody_else_gives_one_chain() -> None:
    plan = planned(config(), MODEL, CLUSTER, 256)
    used = {placement.worker for placement in plan.placements}
    only = Cluster(workers=tuple(w for w in CLUSTER.workers if w.name in used), links=CLUSTER.links)
    assert len(simulated(plan, only, config("simulate.replicas=0")).replicas) == 1
