"""Weights of our operators: found as onnx finds them, read as ONNX Runtime reads them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.external_data_helper import uses_external_data
from onnx.numpy_helper import to_array

from hyperlane.errors import OutOfMemoryError, WorkerError
from hyperlane.model.assemble import assemble
from hyperlane.worker.session import Session
from hyperlane.worker.weights import ALIGNMENT, load_weights, operators_tensors
from tests.fixtures_model import Exported


@pytest.fixture
def graph_path(tiny_int8: Exported) -> Path:
    graph = tiny_int8.store.put(assemble(tiny_int8.manifest, tiny_int8.store, 0, 4, operators=True))
    return tiny_int8.store.path(graph.sha256)


def expected(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    inputs = {name for node in graph.node if node.domain == "hyperlane" for name in node.input}
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT16)
    for tensor in graph.initializer:
        if uses_external_data(tensor) and tensor.name in inputs and tensor.data_type in kinds:
            yield tensor


def test_the_weights_are_those_that_onnx_reads(graph_path: Path) -> None:
    found = load_weights(graph_path)
    names = [tensor.name for tensor in expected(onnx.load(graph_path, load_external_data=False).graph)]
    assert list(found) == names
    assert len(names) > 20
    whole = {tensor.name: to_array(tensor) for tensor in onnx.load(graph_path).graph.initializer}
    for name, array in found.items():
        assert array.dtype == whole[name].dtype
        assert array.ctypes.data % ALIGNMENT == 0
        np.testing.assert_array_equal(array, whole[name])


def test_only_what_our_operators_read_is_taken(tiny: Exported) -> None:
    """FP32 weights are for ONNX Runtime, which packs them anew."""
    content = assemble(tiny.manifest, tiny.store, 0, 4, operators=True)
    names = {tensor.name for tensor in operators_tensors(content)}
    assert names == {tensor.name for tensor in expected(onnx.load_from_string(content).graph)}
    assert not any("proj" in name for name in names)


def test_a_file_elsewhere_is_left_to_onnx_runtime(graph_path: Path) -> None:
    model = onnx.load(graph_path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../" + entry.value
    assert operators_tensors(model.SerializeToString()) == []


def test_a_weight_file_that_is_too_short_is_named(graph_path: Path, tmp_path: Path) -> None:
    tensors = operators_tensors(graph_path.read_bytes())
    for file in {tensor.file for tensor in tensors}:
        (tmp_path / file).write_bytes((graph_path.parent / file).read_bytes()[:-64])
    (tmp_path / "graph.onnx").write_bytes(graph_path.read_bytes())
    with pytest.raises(WorkerError, match=r"cannot load the shard graph.onnx: .* ends within "):
        Session(tmp_path / "graph.onnx", slots=1, context=16, threads=1)


@pytest.mark.parametrize("cut", [1, 2, 3, 50, 200])
def test_a_graph_that_was_cut_is_a_plain_error(graph_path: Path, tmp_path: Path, cut: int) -> None:
    content = graph_path.read_bytes()
    (tmp_path / "graph.onnx").write_bytes(content[: len(content) - cut])
    with pytest.raises(WorkerError, match=r"cannot load the shard"):
        Session(tmp_path / "graph.onnx", slots=1, context=16, threads=1)


def test_weights_that_would_not_fit_are_refused_before_they_are_read(graph_path: Path) -> None:
    needed = sum(-(-t.bytes // ALIGNMENT) * ALIGNMENT for t in operators_tensors(graph_path.read_bytes()))
    with pytest.raises(OutOfMemoryError, match=r"the shard's weights need .* are free; lower"):
        Session(graph_path, slots=1, context=64, threads=1, free_bytes=needed - 1)
    with pytest.raises(OutOfMemoryError, match="keys and values of 1 slots"):  # these have what the weights leave
        Session(graph_path, slots=1, context=64, threads=1, free_bytes=needed + 1000)
