"""Generation over simulated chains: what it takes, by hand; and which chain gets a request."""

from dataclasses import replace

import pytest

from hyperlane.artifacts import HANDOFF_S, TURN_S, Cluster, LinkInfo
from hyperlane.partition import Range
from hyperlane.partition.memory import Workload
from hyperlane.partition.predict import predict
from hyperlane.simulate.costs import ChainCosts
from hyperlane.simulate.serve import Replica, Request, simulate
from tests.partition.clusters import shapes
from tests.partition.test_optimal import worker

MODEL = shapes(24, 4096, 2e8)
CLUSTER = Cluster(
    workers=(worker("a", 1e10), worker("b", 1e10)),
    links=(LinkInfo(source="a", target="b", latency_s=0.01, bytes_per_s=1e6),),
)
RANGES = (Range("a", 0, 12), Range("b", 12, 24))
WORKLOAD = Workload(slots=4, context=2048, prefill_chunk=256, prompt_tokens=1024, codecs=("raw",))


def replica(cluster: Cluster = CLUSTER, ranges: tuple[Range, ...] = RANGES, lanes: int = 2) -> Replica:
    codecs = ["raw"] * (len(ranges) - 1)
    costs = ChainCosts.of(MODEL, cluster, ranges, {"prefill": codecs, "decode": codecs})
    predicted = predict(MODEL, cluster, WORKLOAD, ranges)
    return Replica(
        costs=costs,
        slots=4,
        lanes=lanes,
        context=2048,
        prefill_chunk=256,
        step_s=predicted.step_s,
        token_s=1 / predicted.tokens_per_s,
        prompt_token_s=predicted.ttft_s / 1024,
    )


def test_a_lone_stream_takes_what_the_prediction_adds_up() -> None:
    found = simulate([replica()], [Request(0.0, 1024, 65)])
    (served,) = found.served
    predicted = predict(MODEL, CLUSTER, WORKLOAD, RANGES)
    assert served.tokens == 65
    assert served.token_s == pytest.approx(predicted.step_s, rel=0.01)
    assert served.ttft_s == pytest.approx(predicted.ttft_s)
    first, second = found.spent[0]
    assert first["decode"].steps == second["decode"].steps == 64
    assert first["prefill"].rows == 1024
    assert first["decode"].compute_s / 64 == pytest.approx(predicted.stages[0].decode_s, rel=0.01)


def test_a_lone_prompt_by_hand() -> None:
    """One worker, one piece: there, the step, home, and the coordinator's turn."""
    ranges = (Range("a", 0, 24),)
    (served,) = simulate([replica(ranges=ranges, lanes=1)], [Request(0.0, 2, 1)]).served
    stage = predict(MODEL, CLUSTER, replace(WORKLOAD, prompt_tokens=2), ranges).stages[0]
    way_s = 2 * HANDOFF_S  # a worker's own latency, of half 0.1 ms, is less
    assert served.ttft_s == pytest.approx(way_s + stage.prefill_s + TURN_S, rel=1e-3)


def test_full_lanes_give_what_the_prediction_says() -> None:
    found = simulate([replica()], [Request(0.0, 8, 200) for _ in range(8)])
    tokens = sum(one.tokens for one in found.served)
    predicted = predict(MODEL, CLUSTER, replace(WORKLOAD, prompt_tokens=8), RANGES)
    assert tokens / found.end_s == pytest.approx(predicted.tokens_per_s, rel=0.05)


def test_requests_go_to_the_chain_that_will_be_quickest() -> None:
    quick = Cluster(workers=(worker("c", 4e10),))
    chains = [replica(ranges=(Range("a", 0, 24),), lanes=1), replica(quick, (Range("c", 0, 24),), 1)]
    found = simulate(chains, [Request(i * 0.01, 16, 32) for i in range(20)])
    routed = [one.replica for one in found.served]
    assert routed[0] == 1
    assert 0 < routed.count(0) < routed.count(1)
    alone = simulate(chains[1:], [Request(i * 0.01, 16, 32) for i in range(20)])
    assert found.end_s < alone.end_s


def test_a_burst_lets_a_lone_frame_pass_and_no_stream_of_them() -> None:
    (link,) = CLUSTER.links
    bursting = replace(CLUSTER, links=(replace(link, burst_bytes=10_000),))
    lone = [simulate([replica(one)], [Request(0.0, 2, 17)]).served[0] for one in (CLUSTER, bursting)]
    assert lone[0].token_s - lone[1].token_s == pytest.approx((4096 * 2 + 120) / 1e6, rel=0.01)
    prompts = [simulate([replica(one)], [Request(0.0, 1024, 1)]).served[0] for one in (CLUSTER, bursting)]
    assert prompts[0].ttft_s - prompts[1].ttft_s <= 10_000 / 1e6 * (1 + 1e-6)
