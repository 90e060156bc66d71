"""Attention in pieces, as GPUs compute it in FP32, gives the logits of the fused one: windows, caps, groups."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from hyperlane.model.assemble import assemble
from hyperlane.model.export import export
from hyperlane.model.source import resolve
from hyperlane.model.store import LayerStore
from hyperlane.quantization.none import NoQuantization
from hyperlane.transport.frame import Run
from hyperlane.worker.session import Session
from tests.model.test_families import COMMON, FAMILIES

IDS = np.random.default_rng(5).integers(0, 131, 24)


def logits(path: Path) -> np.ndarray:
    session, found = Session(path, slots=2, context=32, threads=1), []
    for start, count in ((0, 13), (13, 8), (21, 1), (22, 1), (23, 1)):
        result = session.run([Run(1, count, start, count)], IDS[start : start + count], True)
        assert result.logits_NV is not None
        found.append(result.logits_NV)
    session.close()
    return np.concatenate(found)


@pytest.mark.parametrize("model_type", ["mistral", "gpt_neox", "gemma2"])
def test_pieces_give_the_logits_of_the_whole(model_type: str, tmp_path: Path) -> None:
    store = LayerStore(tmp_path)
    checkpoint = resolve("random", architecture=COMMON | FAMILIES[model_type] | {"model_type": model_type})
    manifest = export(checkpoint, store, "float32", NoQuantization())
    whole, pieces = (store.put(assemble(manifest, store, 0, manifest.layers, fused=fused)) for fused in (True, False))
    graph = onnx.load_from_string(store.read(pieces)).graph
    assert "GroupQueryAttention" not in {node.op_type for node in graph.node}
    assert "seqlens_k" not in {value.name for value in graph.input}
    np.testing.assert_allclose(logits(store.path(pieces.sha256)), logits(store.path(whole.sha256)), atol=1e-5)
