"""codec=auto: the codec of least time on a link, for prefill and for decode. Pure.

One token a sequence is mostly latency, so it goes raw on a fast network; prompts and slow links are bandwidth.
"""

from collections.abc import Sequence
from dataclasses import dataclass

EXACT_FIRST = ("raw", "h8", "int4")
"""What a link may carry under codec=auto, the most exact first."""

LEAST_GAIN, LEAST_GAIN_S = 0.03, 20e-6
"""A less exact codec must save this share of the time, latency counted, and so much: less is noise."""


@dataclass(frozen=True, slots=True)
class Cost:
    """A codec's cost of one frame."""

    codec: str
    encode_s: float
    decode_s: float
    payload_bytes: int


def allowed(codec: str) -> tuple[str, ...]:
    """The codecs that may be used where `codec` is the smallest that passed the self-test, the most exact first."""
    return EXACT_FIRST[: EXACT_FIRST.index(codec) + 1]


def link_time_s(cost: Cost, bytes_per_s: float, latency_s: float) -> float:
    """From hidden rows at one worker to hidden rows at the next."""
    return cost.encode_s + cost.payload_bytes / bytes_per_s + latency_s + cost.decode_s


def fastest(costs: Sequence[Cost], bytes_per_s: float, latency_s: float) -> str:
    """The codec to use; `costs` start with the most exact."""
    best = costs[0]
    for cost in costs[1:]:
        time_s = link_time_s(best, bytes_per_s, latency_s)
        if link_time_s(cost, bytes_per_s, latency_s) < time_s - max(LEAST_GAIN * time_s, LEAST_GAIN_S):
            best = cost
    return best.codec
