import os
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch

from hyperlane.errors import ModelError, StoreError
from hyperlane.model.assemble import assemble, shard_blobs, shard_parts
from hyperlane.model.export import export, manifest_key
from hyperlane.model.source import Checkpoint, resolve
from hyperlane.model.spec import read_spec
from hyperlane.model.store import LayerStore
from hyperlane.quantization import Quantization
from hyperlane.quantization.int4 import Int4
from hyperlane.quantization.int8 import Int8
from hyperlane.quantization.none import NoQuantization
from hyperlane.quantization.source import Source
from tests.fixtures_model import TINY, Exported

NONE = NoQuantization()
PARTS = ["embedding", "layer.0", "layer.1", "layer.2", "layer.3", "head"]


@pytest.fixture
def checkpoint() -> Checkpoint:
    return resolve("random", architecture=TINY)


def test_parts_come_in_chain_order_and_layers_of_a_kind_share_a_graph(tiny: Exported) -> None:
    assert [part.name for part in tiny.manifest.parts] == PARTS
    assert len({part.graph for part in tiny.manifest.parts}) == 3
    assert len({part.weights for part in tiny.manifest.parts}) == 6
    assert tiny.manifest.exported == 6


def test_a_second_export_exports_nothing(tiny: Exported) -> None:
    seen: list[tuple[str, int, int]] = []
    again = export(tiny.checkpoint, tiny.store, "float32", NONE, lambda *step: seen.append(step))
    assert again == replace(tiny.manifest, exported=0)
    assert seen == [(name, done, 6) for done, name in enumerate([*PARTS, ""])]


def test_the_same_model_gives_the_same_files(tiny: Exported, tmp_path: Path) -> None:
    assert export(resolve("random", architecture=TINY), LayerStore(tmp_path), "float32", NONE) == tiny.manifest


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"altered")])
def test_only_a_damaged_part_is_exported_again(tiny: Exported, tmp_path: Path, damage) -> None:
    shutil.copytree(tiny.store.root, tmp_path / "copy")
    store, part = LayerStore(tmp_path / "copy"), tiny.manifest.parts[2]
    damage(store.path(part.weights.sha256))
    assert export(tiny.checkpoint, store, "float32", NONE) == replace(tiny.manifest, exported=1)
    store.verify(part.weights)


def test_an_interrupted_export_leaves_nothing_half_written_and_goes_on(checkpoint: Checkpoint, tmp_path: Path) -> None:
    store = LayerStore(tmp_path)

    def stop(part: str, done: int, total: int) -> None:
        if part == "layer.1":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(checkpoint, store, "float32", NONE, stop)
    assert not list(tmp_path.rglob(".new-*"))
    assert export(checkpoint, store, "float32", NONE).exported == 4


def test_one_tensor_is_held_at_a_time(checkpoint: Checkpoint, tmp_path: Path) -> None:
    class Watched:
        def __init__(self) -> None:
            self.alive: list[weakref.ref[torch.Tensor]] = []

        def read(self, name: str) -> torch.Tensor:
            assert [tensor for tensor in self.alive if tensor() is not None] == []
            tensor = checkpoint.weights.read(name)
            self.alive.append(weakref.ref(tensor))
            return tensor

    watched = Watched()
    export(replace(checkpoint, weights=watched), LayerStore(tmp_path), "float32", Int8())
    assert len(watched.alive) == 1 + 4 * 9 + 2


def test_a_tensor_of_another_shape_is_named(checkpoint: Checkpoint, tmp_path: Path) -> None:
    class Transposed:
        def read(self, name: str) -> torch.Tensor:
            return checkpoint.weights.read(name).T

    wrong = replace(checkpoint, weights=Transposed())
    with pytest.raises(ModelError, match=r"embed_tokens\.weight has shape \[64, 260\] where .* \[260, 64\]"):
        export(wrong, LayerStore(tmp_path), "float32", NONE)


def test_a_disk_that_fills_up_is_named(checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=f"the disk of {tmp_path} is full"):
        export(checkpoint, LayerStore(tmp_path), "float32", NONE)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_key_tells_options_and_weights_apart(checkpoint: Checkpoint) -> None:
    other = resolve("random", architecture=TINY, seed=1)
    larger = resolve("random", architecture=TINY | {"num_hidden_layers": 5})
    keys = [manifest_key(model, "float32", NONE) for model in (checkpoint, other, larger)]
    keys += [manifest_key(checkpoint, "float16", NONE), manifest_key(checkpoint, "float32", Int8())]
    keys += [manifest_key(checkpoint, "float32", Int8(embedding=False))]
    assert len(set(keys)) == 6
    assert manifest_key(resolve("random", architecture=TINY), "float32", NONE) == keys[0]


@pytest.mark.parametrize(
    ("quantization", "dtype"),
    [(NONE, "float32"), (Int8(), "float32"), (Int4(embedding=False), "float16"), (Source(), "float32")],
    ids=lambda option: getattr(option, "name", option),
)
def test_the_spec_tells_the_sizes_of_the_files(
    checkpoint: Checkpoint, tmp_path: Path, quantization: Quantization, dtype: str
) -> None:
    spec = read_spec(checkpoint, dtype, quantization, 32 if dtype == "float32" else 16)
    manifest = export(checkpoint, LayerStore(tmp_path), dtype, quantization)
    found = [part.weights.bytes for part in manifest.parts]
    assert [spec.embedding_bytes, *spec.layer_bytes, spec.head_bytes] == found
    assert spec.kv_bytes_per_token == (2 * 2 * 16 * (4 if dtype == "float32" else 2),) * 4
    assert (spec.layers, spec.hidden_size, spec.vocab_size, spec.max_positions) == (4, 64, 260, 512)


def test_shards_name_their_weight_files_and_no_others(tiny: Exported) -> None:
    model = onnx.load_from_string(assemble(tiny.manifest, tiny.store, 1, 4))
    located = {entry.value for t in model.graph.initializer for entry in t.external_data if entry.key == "location"}
    assert located == {blob.sha256 for blob in shard_blobs(tiny.manifest, 1, 4)}
    assert [part.name for part in shard_parts(tiny.manifest, 1, 4)] == PARTS[2:]
    assert [part.name for part in shard_parts(tiny.manifest, 0, 1)] == PARTS[:2]
    assert [part.name for part in shard_parts(tiny.manifest, 0, 4)] == PARTS


def test_assembling_is_deterministic_and_computes_rotary_tables_once(tiny: Exported) -> None:
    content = assemble(tiny.manifest, tiny.store, 0, 4)
    assert content == assemble(tiny.manifest, tiny.store, 0, 4)
    operators = [node.op_type for node in onnx.load_from_string(content).graph.node]
    assert operators.count("GroupQueryAttention") == 4
    assert operators.count("Cos") == operators.count("Sin") == 1


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (2, 2), (3, 2), (-1, 2), (0, 5)])
def test_there_are_no_shards_beyond_the_layers(tiny: Exported, start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="no shard"):
        assemble(tiny.manifest, tiny.store, start, stop)
