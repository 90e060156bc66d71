"""Described machines: what a plan sees of them, and what makes no sense."""

from dataclasses import replace

import pytest

from hyperlane.artifacts import Cluster
from hyperlane.cluster.simulated import Machine, Simulated, SiteLink
from hyperlane.errors import ConfigError
from hyperlane.partition import count
from hyperlane.partition.explain import explain
from hyperlane.partition.memory import Workload
from hyperlane.partition.optimal import Objective, Optimal
from hyperlane.partition.predict import predict
from tests.partition.clusters import shapes

WORKLOAD = Workload(slots=4, context=2048, prefill_chunk=256, codecs=("raw", "int4"))
MODEL = shapes(40, 5120, 1.6e8)


def described(**changes: object) -> Simulated:
    fast = Machine(name="fast", count=1, memory_gb=6, bandwidth_gb_per_s=400, tflops=20, site="a")
    slow = Machine(name="slow", count=2, memory_gb=4, bandwidth_gb_per_s=40, tflops=1, site="b")
    links = [SiteLink(source="a", target="b", mbit_per_s=100, latency_ms=1), SiteLink(source="b", target="b")]
    return replace(Simulated(machines=[fast, slow], links=links), **changes)


def explained(cluster: Cluster, settings: Optimal) -> str:
    cut = settings.cut(MODEL, cluster, WORKLOAD)
    placements = count(settings, cut, MODEL, cluster, WORKLOAD)
    predicted = predict(MODEL, cluster, WORKLOAD, cut.ranges)
    assert cut.objective is not None
    assert cut.bound is not None
    return explain(settings, MODEL, cluster, WORKLOAD, placements, predicted, cut.objective, cut.bound)


def test_machines_and_links_are_as_described() -> None:
    cluster = described().described()
    assert [worker.name for worker in cluster.workers] == ["fast", "slow-0", "slow-1"]
    ends = {(link.source, link.target): link for link in cluster.links}
    assert ends.keys() == {("a", "b"), ("b", "a"), ("b", "b")}
    assert ends["b", "a"].bytes_per_s == 12.5e6
    assert ends["b", "a"].latency_s == 1e-3


def test_a_plan_over_them_says_why() -> None:
    text = explained(described().described(), Optimal())
    assert text.startswith("objective=latency: ")
    assert "proven best" in text
    assert "fast holds 0:" in text or "fast holds" in text
    assert "memory binds" in text
    assert "another fast would bring" in text
    assert "left out" in text or "slow-1 holds" in text


def test_throughput_explains_its_own_unit() -> None:
    assert "ms a token" in explained(described().described(), Optimal(objective=Objective.throughput))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"machines": []}, "cluster.machines is empty"),
        ({"machines": [Machine(), Machine()]}, "two kinds alike"),
        ({"machines": [Machine(tflops=0)]}, "tflops=0 of machine; give more than 0"),
        ({"links": [SiteLink(source="c")]}, r"no machine is at source=c; there are \['a', 'b'\]"),
        ({"links": [SiteLink(source="a", target="b", mbit_per_s=0)]}, "0 Mbit/s"),
    ],
)
def test_what_makes_no_sense_is_said(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        described(**wrong).described()
