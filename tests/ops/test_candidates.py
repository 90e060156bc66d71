"""The native candidates are those of hyperlane/quantization/reference.py on every instruction set."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperlane import _native
from hyperlane.quantization import reference

ISAS = tuple(_native.isas())


@pytest.mark.parametrize("isa", ISAS)
@given(rows=st.integers(1, 4), width=st.integers(1, 3000), count=st.integers(1, 80), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_the_largest_come_first_with_the_logsumexp(isa: str, rows: int, width: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = np.round(rng.normal(0, 4, (rows, width)), 1).astype(np.float32)  # with ties
    found = _native.candidates(logits, min(count, width), isa=isa)
    for ours, expected in zip(found, reference.candidates(logits, min(count, width)), strict=True):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("isa", ISAS)
def test_what_is_not_finite(isa: str) -> None:
    logits = np.random.default_rng(0).normal(size=(3, 400)).astype(np.float32)
    logits[0, ::2], logits[1, 5:], logits[2] = np.nan, -np.inf, np.nan
    ids, values, _ = _native.candidates(logits, 64, isa=isa)
    assert np.isfinite(values[0]).all()
    np.testing.assert_array_equal(np.sort(ids[1]), np.arange(64))
    assert len(set(ids[2].tolist())) == 64


def test_the_logsumexp_is_one() -> None:
    logits = np.random.default_rng(1).normal(0, 5, (4, 50_000)).astype(np.float32)
    _, _, found = _native.candidates(logits, 1)
    expected = np.log(np.exp(logits.astype(np.float64)).sum(1))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
