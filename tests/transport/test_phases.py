"""codec=auto: who wins where."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperlane.transport.phases import LEAST_GAIN, LEAST_GAIN_S, Cost, allowed, fastest, link_time_s

DECODE = (Cost("raw", 1e-6, 1e-6, 16384), Cost("h8", 6e-6, 4e-6, 4200), Cost("int4", 8e-6, 5e-6, 2020))
PREFILL = tuple(Cost(cost.codec, cost.encode_s * 256, cost.decode_s * 256, cost.payload_bytes * 256) for cost in DECODE)


@pytest.mark.parametrize(
    ("costs", "bytes_per_s", "latency_s", "chosen"),
    [
        (DECODE, 5e9, 50e-6, "raw"),  # loopback
        (DECODE, 1.2e9, 500e-6, "raw"),  # one token over a fast network is latency
        (DECODE, 12e6, 100e-6, "int4"),  # 100 Mbit/s
        (PREFILL, 1.2e8, 100e-6, "int4"),
        (PREFILL, 20e9, 10e-6, "raw"),
    ],
)
def test_bandwidth_and_latency_decide(
    costs: tuple[Cost, ...], bytes_per_s: float, latency_s: float, chosen: str
) -> None:
    assert fastest(costs, bytes_per_s, latency_s) == chosen


SECONDS = st.floats(0, 1)


@given(
    timings=st.lists(st.tuples(SECONDS, SECONDS, st.integers(1, 10**9)), min_size=1, max_size=4),
    bytes_per_s=st.floats(1e3, 1e11),
    latency_s=st.floats(1e-6, 1),
)
def test_no_codec_would_be_much_faster(
    timings: list[tuple[float, float, int]], bytes_per_s: float, latency_s: float
) -> None:
    costs = [Cost(str(i), *timing) for i, timing in enumerate(timings)]
    times = [link_time_s(cost, bytes_per_s, latency_s) for cost in costs]
    chosen = int(fastest(costs, bytes_per_s, latency_s))
    assert all(time >= times[chosen] - max(LEAST_GAIN * times[chosen], LEAST_GAIN_S) - 1e-9 for time in times[chosen:])
    assert all(time >= times[chosen] for time in times[:chosen]), "a less exact codec is there to save time"


def test_a_codec_that_failed_the_self_test_is_not_offered() -> None:
    assert allowed("int4") == ("raw", "h8", "int4")
    assert allowed("h8") == ("raw", "h8")
    assert allowed("raw") == ("raw",)
