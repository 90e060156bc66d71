"""Stored forms of a weight, each read back by the operator that it is for."""

import subprocess
import sys
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hyperlane.quantization import Quantization, Role
from hyperlane.quantization.int4 import Int4
from hyperlane.quantization.int8 import Int8
from hyperlane.quantization.none import NoQuantization

ERROR = {"none": 1e-6, "int8": 0.012, "int4": 0.12}  # allowed, relative to the root mean square
FORMS = [NoQuantization(), Int8(), Int8(accuracy_level=1, block_size=64), Int4(), Int4(block_size=128)]


@pytest.mark.parametrize("quantization", FORMS, ids=lambda form: form.name)
@pytest.mark.parametrize("role", ["matmul", "gather"])
@pytest.mark.parametrize("K", [128, 96, 80])
def test_a_stored_weight_computes_nearly_what_it_did(quantization: Quantization, role: Role, K: int) -> None:
    rng = np.random.default_rng(0)
    weight_NK = rng.standard_normal((40, K), np.float32)
    arrays = quantization.pack(role, weight_NK)
    layout = quantization.layout(role, weight_NK.shape, weight_NK.dtype)
    assert [(a.shape, a.dtype, a.nbytes) for a in arrays] == [(a.shape, a.dtype, a.bytes) for a in layout]
    data = np.arange(40) if role == "gather" else rng.standard_normal((3, K), np.float32)
    expected = weight_NK if role == "gather" else data @ weight_NK.T
    found = _run(quantization, role, weight_NK.shape, arrays, data)
    error = np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean())
    assert error < ERROR[quantization.name.partition("-")[0]]


@pytest.mark.parametrize(("quantization", "bits"), [(Int8(), 9.25), (Int4(), 5.25)], ids=["int8", "int4"])
def test_a_weight_takes_its_bits_a_scale_and_a_zero_point_a_block(quantization: Quantization, bits: float) -> None:
    layout = quantization.layout("matmul", (128, 1024), np.dtype(np.float32))
    assert sum(array.bytes for array in layout) * 8 / (128 * 1024) == pytest.approx(bits, abs=0.2)


def test_the_embedding_can_be_left_as_it_is() -> None:
    weight_NK = np.ones((40, 64), np.float32)
    assert Int8(embedding=False).pack("gather", weight_NK)[0].dtype == np.float32
    assert len(Int8(embedding=False).pack("matmul", weight_NK)) == 3


def test_names_tell_all_options_apart() -> None:
    forms = [NoQuantization(), Int4(), Int8(), Int8(block_size=64), Int8(accuracy_level=1), Int8(embedding=False)]
    assert len({form.name for form in forms}) == len(forms)


def test_packing_leaves_the_logging_of_the_program_alone() -> None:
    code = """
import logging, numpy
from hyperlane.quantization.int8 import Int8
Int8().pack("matmul", numpy.ones((8, 32), numpy.float32))
root = logging.getLogger()
assert (root.handlers, root.level) == ([], logging.WARNING), root.handlers
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def _run(
    quantization: Quantization, role: Role, shape: tuple[int, int], arrays: tuple[NDArray[Any], ...], data: Any
) -> NDArray[np.float32]:
    """One product or look-up by ONNX Runtime."""
    stored = [f"w{i}" for i in range(len(arrays))]
    operator = quantization.operator(role, shape)
    inputs = [stored[0], "x", *stored[1:]] if role == "gather" else ["x", *stored]
    node = helper.make_node(operator.name, inputs, ["y"], domain=operator.domain, **operator.attributes)
    kind = TensorProto.INT64 if role == "gather" else TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", kind, data.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for array, name in zip(arrays, stored, strict=True)],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": data})[0]
