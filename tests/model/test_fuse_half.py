"""Graphs in FP16 with fewer nodes compute what they computed before."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from hyperlane.model import lower
from hyperlane.model.assemble import assemble
from hyperlane.model.export import export
from hyperlane.model.fuse_device import fuse_device
from hyperlane.model.source import resolve
from hyperlane.model.store import LayerStore
from hyperlane.quantization import Quantization
from hyperlane.quantization.int4 import Int4, Method
from hyperlane.quantization.none import NoQuantization
from hyperlane.transport.frame import Run
from hyperlane.worker.session import Session
from tests.fixtures_model import Exported

TEXT = np.random.default_rng(4).integers(0, 260, 12)


def _logits(path: Path) -> np.ndarray:
    session = Session(path, slots=3, context=32, threads=1)
    found = []
    for start, count in ((0, 6), (6, 4), (10, 1), (11, 1)):
        result = session.run([Run(1, count, start, count)], TEXT[start : start + count], True)
        assert result.logits_NV is not None
        found.append(result.logits_NV)
    return np.concatenate(found)


def test_a_layer_on_a_gpu_is_five_nodes(tmp_path: Path) -> None:
    """A head of 64 elements and matrices of whole tiles, as our operators want them."""
    store = LayerStore(tmp_path)
    shape = {
        "model_type": "llama",
        "hidden_size": 256,
        "intermediate_size": 320,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 320,
    }
    checkpoint = resolve("random", None, shape, 0, store)
    manifest = export(checkpoint, store, "float16", NoQuantization())
    graph = onnx.load_from_string(assemble(manifest, store, 0, 3, on_gpu=True)).graph
    kinds = Counter(node.op_type for node in graph.node)
    assert kinds["HalfAttention"] == 3
    assert kinds["HalfLinear"] == 4 * 3 + 1
    assert not kinds.keys() & {"MatMul", "GroupQueryAttention", "SimplifiedLayerNormalization", "Sigmoid"}
    assert "seqlens_k" not in {value.name for value in graph.input}
    made = {value.name for value in (*graph.input, *graph.initializer)}
    for node in graph.node:
        assert all(name in made for name in node.input if name), node.name
        made.update(node.output)
    linears = [node for node in graph.node if node.op_type == "HalfLinear"]
    assert [sum(map(bool, node.input)) for node in linears[:4]] == [3, 3, 4, 3]  # norm; residual; up, norm; residual
    assert sum(node.input[4] != "" for node in linears if len(node.input) > 4) == 2 * 3


def test_what_does_not_fit_our_operators_stays(tiny: Exported, tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    for quantization in (NoQuantization(), Int4(method=Method.rtn, minima=False)):
        manifest = export(tiny.checkpoint, store, "float16", quantization)
        graph = onnx.load_from_string(assemble(manifest, store, 0, manifest.layers, on_gpu=True)).graph
        kinds = Counter(node.op_type for node in graph.node)
        assert kinds["HalfAttention"] == 0
        assert kinds["GroupQueryAttention"] == manifest.layers
        assert "seqlens_k" in {value.name for value in graph.input}


@pytest.mark.parametrize("quantization", [NoQuantization(), Int4(method=Method.rtn, minima=False)])
def test_fewer_nodes_give_the_same_logits(
    tiny: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantization: Quantization
) -> None:
    store = LayerStore(tmp_path)
    manifest = export(tiny.checkpoint, store, "float16", quantization)
    fused = store.put(assemble(manifest, store, 0, manifest.layers))
    monkeypatch.setattr(lower, "fuse_half", lambda graph, operators: None)
    plain = store.put(assemble(manifest, store, 0, manifest.layers))
    kinds = Counter(node.op_type for node in onnx.load_from_string(store.read(fused)).graph.node)
    assert kinds["RotaryEmbedding"] == kinds["Pow"] == 0
    assert kinds["SkipSimplifiedLayerNormalization"] == 2 * manifest.layers - 1
    found, expected = _logits(store.path(fused.sha256)), _logits(store.path(plain.sha256))
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())


@pytest.mark.parametrize("other", ["x", "bias", "behind"])
def test_only_rows_are_taken_for_a_residual(other: str) -> None:
    """A bias has one row: read as rows it would end after the first."""
    half = onnx.TensorProto.FLOAT16
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Identity", ["bias"], ["behind"]),
            onnx.helper.make_node("MatMul", ["x", "w"], ["product"], name="linear"),
            onnx.helper.make_node("Add", ["product", other], ["sum"]),
        ],
        "g",
        [onnx.helper.make_tensor_value_info("x", half, [1, "S", 64])],
        [onnx.helper.make_tensor_value_info("sum", half, [1, "S", 64])],
        [
            onnx.numpy_helper.from_array(np.ones((64, 64), np.float16), "w"),
            onnx.numpy_helper.from_array(np.ones(64, np.float16), "bias"),
        ],
    )
    fuse_device(graph)
    (linear,) = (node for node in graph.node if node.op_type == "HalfLinear")
    assert list(linear.input[4:]) == (["x"] if other == "x" else [""])
    assert any(node.op_type == "Add" for node in graph.node) == (other != "x")
