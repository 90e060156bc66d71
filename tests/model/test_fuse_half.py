"""Graphs in FP16 with fewer nodes compute what they computed before."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from hyperlane.model import lower
from hyperlane.model.assemble import assemble
from hyperlane.model.export import export
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
