"""Every choice of storing weights keeps their values, as nearly as it promises."""

import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from hyperlane.quantization import Form, Quantization, Role, reference
from hyperlane.quantization.auto import Auto
from hyperlane.quantization.int4 import Int4, Method
from hyperlane.quantization.int8 import Int8
from hyperlane.quantization.none import NoQuantization
from hyperlane.quantization.reference import Blocks
from hyperlane.quantization.source import Source

CHOICES = [NoQuantization(), Int8(), Int8(embedding=False), Int4(), Int4(method=Method.rtn), Source()]
ERROR = {8: 0.008, 4: 0.11}  # allowed, of the root mean square, by bits


@dataclass(frozen=True)
class Matrix:
    """A parameter whose checkpoint may store it in blocks."""

    weight_NK: NDArray[np.float32]
    held: Blocks | None = None

    def values(self) -> NDArray[np.float32]:
        return self.weight_NK

    def blocks(self) -> Blocks | None:
        return self.held


def normal(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.name)
@pytest.mark.parametrize("role", ["matmul", "gather"])
@pytest.mark.parametrize("K", [128, 96, 80])
def test_a_packed_weight_is_nearly_what_it_was(choice: Quantization, role: Role, K: int) -> None:
    form = choice.form(role, None)
    if form is None:
        assert isinstance(choice, NoQuantization) or role == "gather"
        return
    blocks = choice.pack(form, Matrix(normal(40, K)))
    assert (blocks.bits, blocks.minima_NB is not None) == (form.bits, form.minima)
    difference = blocks.values() - normal(40, K)
    assert np.sqrt((difference**2).mean()) < ERROR[form.bits]
    arrays = form.arrays(((40, K),))
    stored = reference.tiled(blocks)
    assert [(part.shape, part.dtype) for part in stored] == [(array.shape, array.dtype) for array in arrays]


def test_kquant_is_better_than_rounding_to_nearest() -> None:
    errors = []
    for method in (Method.kquant, Method.rtn):
        blocks = Int4(method=method).pack(Form(bits=4, minima=True), Matrix(normal(64, 256)))
        errors.append(((blocks.values() - normal(64, 256)) ** 2).mean())
    assert errors[0] < 0.93 * errors[1]


@pytest.mark.parametrize("choice", [Int8(), Int4(), Int4(method=Method.rtn)], ids=lambda choice: choice.name)
def test_zeros_constants_and_large_values_stay_finite(choice: Quantization) -> None:
    weight_NK = normal(16, 64)
    weight_NK[0], weight_NK[1], weight_NK[2], weight_NK[3, 0] = 0, 0.5, 1e-30, 3e4
    form = choice.form("matmul", None)
    assert form is not None
    values = choice.pack(form, Matrix(weight_NK)).values()
    assert np.isfinite(values).all()
    assert not values[0].any()
    np.testing.assert_allclose(values[1], 0.5, rtol=5e-3)


def test_blocks_of_the_checkpoint_are_kept_and_the_rest_is_int8() -> None:
    held = Int4().pack(Form(bits=4, minima=True), Matrix(normal(16, 64)))
    form = Source().form("matmul", Form(bits=4, minima=True))
    assert form == Form(bits=4, minima=True)
    assert Source().pack(form, Matrix(held.values(), held)) is held
    assert Source().form("matmul", None) == Form(bits=8, minima=False)


@pytest.mark.parametrize(
    ("form", "bits"),
    [(Form(bits=8, minima=False), 8.5), (Form(bits=4, minima=True), 5), (Form(bits=4, minima=False), 4.5)],
)
def test_a_weight_takes_its_bits_and_half_precision_scales(form: Form, bits: float) -> None:
    assert sum(array.bytes for array in form.arrays(((128, 1024),))) * 8 / (128 * 1024) == bits


def test_names_tell_all_options_apart() -> None:
    assert len({choice.name for choice in CHOICES}) == len(CHOICES)


def test_packing_leaves_the_logging_of_the_program_alone() -> None:
    code = """
import logging, numpy
from hyperlane.quantization.auto import Auto
from hyperlane.quantization.int4 import FORM, Int4
class Ones:
    def values(self): return numpy.ones((8, 32), numpy.float32)
Int4().pack(FORM, Ones())
root = logging.getLogger()
assert (root.handlers, root.level) == ([], logging.WARNING), root.handlers
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_auto_stores_for_cpus_what_the_default_stores() -> None:
    assert Auto().name == Source().name
    assert Auto().form("matmul", None) == Source().form("matmul", None)
    values = Matrix(normal(16, 64))
    found, expected = (choice.pack(Form(bits=8, minima=False), values) for choice in (Auto(), Source()))
    assert np.array_equal(found.codes_NK, expected.codes_NK)
