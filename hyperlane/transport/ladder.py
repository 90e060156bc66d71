"""Which codec each boundary may use: the budgets, and the way down from the codec that was asked for. Pure.

A boundary whose relative error is over budget falls one rung; while the chain's KL is over budget, the boundary
with the largest error falls; then the chain is measured again. Raw has neither error nor KL, so this ends.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

RAW = "raw"
ERROR_BUDGET = 0.005  # mean relative squared error of a row at one boundary
KL_BUDGET = 0.02  # nats, of a chain of up to three boundaries
TEST_TOKENS = 1024
VERSION = 5  # of this procedure and of what the codecs compute: results of another one are not taken from the store

_BELOW = {"int4": "h8", "h4": "h8", "int4_plain": "h8", "int8": RAW, "h8": RAW}


@dataclass(frozen=True, slots=True)
class Rung:
    """Where a boundary stands: its codec, that codec's relative error, and why better ones fell."""

    codec: str
    relative_error: float
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Settled:
    """Every boundary's rung, and the KL of the chain that they make."""

    rungs: tuple[Rung, ...]
    kl: float


def kl_budget(boundaries: int) -> float:
    """The KL that a chain may have: it grows about fourfold from one boundary to three."""
    return KL_BUDGET * max(1.0, boundaries / 3)


def settle(
    wanted: str,
    layers: Sequence[int],
    error_of: Callable[[int, str], float],
    kl_of: Callable[[Sequence[str]], float],
) -> Settled:
    """Go down from `wanted` until every boundary and the chain are within budget.

    layers: the last layer before each boundary. error_of(boundary, codec) and kl_of(codecs) measure.
    A measurement that is no number counts as over budget.
    """
    rungs = [_admitted(Rung(wanted, error_of(i, wanted)), i, layer, error_of) for i, layer in enumerate(layers)]
    budget = kl_budget(len(layers))
    while any(rung.codec != RAW for rung in rungs):
        kl = kl_of([rung.codec for rung in rungs])
        if kl <= budget:
            return Settled(tuple(rungs), kl)
        worst = max((i for i, rung in enumerate(rungs) if rung.codec != RAW), key=lambda i: rungs[i].relative_error)
        why = f"{rungs[worst].codec} refused after layer {layers[worst]}: KL of the chain {kl:.2g} > {budget:.2g}"
        rungs[worst] = _admitted(_fallen(rungs[worst], why, worst, error_of), worst, layers[worst], error_of)
    return Settled(tuple(rungs), 0.0)


def _admitted(rung: Rung, boundary: int, layer: int, error_of: Callable[[int, str], float]) -> Rung:
    """The rung, or the first one below that is within the error budget."""
    while rung.codec != RAW and not rung.relative_error <= ERROR_BUDGET:
        error = f"relative error {100 * rung.relative_error:.2g} % > {100 * ERROR_BUDGET:.2g} %"
        rung = _fallen(rung, f"{rung.codec} refused after layer {layer}: {error}", boundary, error_of)
    return rung


def _fallen(rung: Rung, why: str, boundary: int, error_of: Callable[[int, str], float]) -> Rung:
    below = _BELOW[rung.codec]
    return Rung(below, 0.0 if below == RAW else error_of(boundary, below), (*rung.refused, why))
