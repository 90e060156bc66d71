"""The way down from a codec: budgets hold in the end, and nothing falls without a reason."""

import math

from hypothesis import given
from hypothesis import strategies as st

from hyperlane.transport.ladder import ERROR_BUDGET, RAW, kl_budget, settle

ORDER = ("int4", "h4", "h8", RAW)
ERRORS = st.floats(0, 0.02) | st.just(math.nan)


@given(
    wanted=st.sampled_from(ORDER),
    errors=st.lists(st.fixed_dictionaries({"int4": ERRORS, "h4": ERRORS, "h8": ERRORS}), min_size=1, max_size=8),
    factor=st.floats(0, 50),
)
def test_what_is_settled_is_within_both_budgets(wanted: str, errors: list[dict[str, float]], factor: float) -> None:
    def error_of(boundary: int, codec: str) -> float:
        return 0.0 if codec == RAW else errors[boundary][codec]

    def kl_of(codecs: list[str]) -> float:
        return factor * sum(error_of(i, codec) for i, codec in enumerate(codecs))

    settled = settle(wanted, range(len(errors)), error_of, kl_of)
    codecs = [rung.codec for rung in settled.rungs]
    assert settled.kl <= kl_budget(len(errors))
    assert settled.kl == (kl_of(codecs) if set(codecs) != {RAW} else 0)
    for boundary, rung in enumerate(settled.rungs):
        assert rung.relative_error <= ERROR_BUDGET
        assert rung.relative_error == error_of(boundary, rung.codec)
        assert ORDER.index(rung.codec) >= ORDER.index(wanted)
        assert bool(rung.refused) == (rung.codec != wanted)


def test_a_boundary_over_its_error_falls_and_says_why() -> None:
    errors = {"int4": 0.009, "h8": 0.0001}
    (rung,) = settle("int4", [15], lambda i, codec: errors[codec], lambda codecs: 0.001).rungs
    assert (rung.codec, rung.relative_error) == ("h8", 0.0001)
    assert rung.refused == ("int4 refused after layer 15: relative error 0.9 % > 0.5 %",)


def test_the_worst_boundary_falls_while_the_chain_is_over_its_kl() -> None:
    measured = []

    def kl_of(codecs: list[str]) -> float:
        measured.append(tuple(codecs))
        return 0.015 * codecs.count("int4")

    settled = settle("int4", [7, 15, 23], lambda i, codec: [0.001, 0.003, 0.002][i] if codec == "int4" else 1e-6, kl_of)
    assert measured == [("int4",) * 3, ("int4", "h8", "int4"), ("int4", "h8", "h8")]
    assert [rung.codec for rung in settled.rungs] == ["int4", "h8", "h8"]
    assert settled.rungs[1].refused == ("int4 refused after layer 15: KL of the chain 0.045 > 0.02",)


def test_the_kl_budget_grows_with_the_chain() -> None:
    assert [kl_budget(boundaries) for boundaries in (1, 2, 3, 6)] == [0.02, 0.02, 0.02, 0.04]


def test_raw_needs_no_measurement() -> None:
    settled = settle(RAW, [3], lambda i, codec: 0.0, lambda codecs: math.nan)
    assert (settled.rungs[0].codec, settled.kl) == (RAW, 0.0)
