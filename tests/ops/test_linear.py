"""The native operators give the bits of hyperlane/quantization/reference.py on every instruction set."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hyperlane import _native
from hyperlane.quantization import reference
from hyperlane.quantization.reference import Blocks

ISAS = tuple(_native.isas())


def random_blocks(rng: np.random.Generator, N: int, K: int, bits: int, *, minima: bool) -> Blocks:
    B = -(-K // reference.BLOCK)
    scales = rng.normal(0, 0.01, (N, B)).astype(np.float16)
    return Blocks(
        bits=bits,
        codes_NK=rng.integers(0, 2**bits, (N, K), dtype=np.uint8),
        scales_NB=scales,
        minima_NB=rng.normal(0, 0.1, (N, B)).astype(np.float16) if minima else None,
    )


def native(x: NDArray[np.float32], weight: Blocks, sizes: list[int], isa: str, **options: object) -> list:
    codes, scales, *minima = reference.tiled(weight)
    halves = [part.view(np.uint16) for part in (scales, *minima)]
    return _native.linear(
        x, weight.bits, codes, halves[0], halves[1] if minima else None, sizes=sizes, isa=isa, **options
    )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("minima", [False, True])
@given(rows=st.integers(1, 70), N=st.integers(1, 50), K=st.integers(1, 200), seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_products_are_the_references(isa: str, bits: int, minima: bool, rows: int, N: int, K: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(rows, K)) * 10.0 ** rng.integers(-3, 3, (rows, 1))).astype(np.float32)
    weight = random_blocks(rng, N, K, bits, minima=minima)
    (found,) = native(x, weight, [N], isa)
    np.testing.assert_array_equal(found, reference.multiply(x, weight))


@pytest.mark.parametrize("isa", ISAS)
def test_a_row_does_not_depend_on_its_neighbours(isa: str) -> None:
    rng = np.random.default_rng(1)
    x, weight = rng.normal(size=(19, 96)).astype(np.float32), random_blocks(rng, 40, 96, 4, minima=True)
    (together,) = native(x, weight, [40], isa)
    for row in range(19):
        (alone,) = native(x[row : row + 1], weight, [40], isa)
        np.testing.assert_array_equal(alone[0], together[row])


@pytest.mark.parametrize("isa", ISAS)
def test_what_stands_around_a_product(isa: str) -> None:
    rng = np.random.default_rng(2)
    x, norm = rng.normal(size=(9, 72)).astype(np.float32), rng.normal(size=72).astype(np.float32)
    weight = random_blocks(rng, 48, 72, 8, minima=False)
    bias, residual = rng.normal(size=48).astype(np.float32), rng.normal(size=(9, 48)).astype(np.float32)
    normed = reference.rms_norm(x, norm, 1e-5)
    product = reference.multiply(normed, weight)
    (plain,) = native(x, weight, [48], isa, norm=norm, epsilon=1e-5)
    np.testing.assert_array_equal(plain, product)
    (full,) = native(x, weight, [48], isa, norm=norm, epsilon=1e-5, bias=bias, residual=residual)
    np.testing.assert_array_equal(full, (product + bias) + residual)


@pytest.mark.parametrize("isa", ISAS)
def test_three_outputs_and_a_gate(isa: str) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(5, 64)).astype(np.float32)
    parts = [random_blocks(rng, N, 64, 4, minima=True) for N in (32, 16, 5)]
    packed = Blocks(
        bits=4,
        codes_NK=np.concatenate([p.codes_NK for p in parts]),
        scales_NB=np.concatenate([p.scales_NB for p in parts]),
        minima_NB=np.concatenate([p.minima_NB for p in parts if p.minima_NB is not None]),
    )
    for found, part in zip(native(x, packed, [32, 16, 5], isa), parts, strict=True):
        np.testing.assert_array_equal(found, reference.multiply(x, part))
    both = Blocks(
        bits=4, codes_NK=packed.codes_NK[:32], scales_NB=packed.scales_NB[:32], minima_NB=packed.minima_NB[:32]
    )
    (gated,) = native(x, both, [16], isa, gated=True)
    product = reference.multiply(x, both)
    np.testing.assert_array_equal(gated, reference.gate(product[:, :16], product[:, 16:]))


@pytest.mark.parametrize("isa", ISAS)
def test_what_is_not_finite_stays_in_its_row(isa: str) -> None:
    rng = np.random.default_rng(4)
    x, weight = rng.normal(size=(4, 64)).astype(np.float32), random_blocks(rng, 16, 64, 4, minima=True)
    x[1, 3], x[2, 40] = np.nan, -np.inf
    x[3] = 1e-38
    (found,) = native(x, weight, [16], isa)
    np.testing.assert_array_equal(found, reference.multiply(x, weight))
    assert np.isnan(found[1:3]).all()
    assert np.isfinite(found[0]).all()
    assert not found[3].any()


def test_the_stored_form_is_fixed() -> None:
    weight = random_blocks(np.random.default_rng(5), 20, 70, 4, minima=True)
    stored = b"".join(part.tobytes() for part in reference.tiled(weight))
    assert hashlib.sha256(stored).hexdigest() == "2c70c1b45e57ae110601221e9129b82ca5d580c798a38438d9366d36b0671270"


def test_the_exponential_is_one() -> None:
    x = np.linspace(-86, 87, 10_001, dtype=np.float32)
    np.testing.assert_allclose(reference.exponential(x), np.exp(x.astype(np.float64)), rtol=3e-7)
