"""Export a model into the layer store: once, one part at a time, named by what goes in."""

import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import cached_property

import numpy as np
import onnx_ir as ir
import torch

from hyperlane.artifacts import Blob, Manifest, Part
from hyperlane.model.graph import Template, stored_bytes, to_template
from hyperlane.model.skeleton import layer_kinds, parameter_shapes, skeleton
from hyperlane.model.source import Checkpoint, StoredParameter
from hyperlane.model.store import LayerStore
from hyperlane.model.trace import trace_embedding, trace_head, trace_layer
from hyperlane.quantization import Form, Quantization, Role

_EXPORTER = 6  # raise it when the same inputs give other graphs or weight files

Progress = Callable[[str, int, int], None]


def export(
    checkpoint: Checkpoint,
    store: LayerStore,
    dtype: str,
    quantization: Quantization,
    progress: Progress = lambda part, done, total: None,
) -> Manifest:
    """Write the parts that the store lacks, or holds damaged, and the manifest of all.

    `progress(part, done, total)` is called before each part and at the end; what it raises stops the export,
    and the parts written until then are found again by the next one. Memory: one tensor at a time.
    Raises ModelError where HF's model cannot be traced or lacks a tensor, StoreError where the disk fails.
    """
    key = manifest_key(checkpoint, dtype, quantization)
    held = store.manifest(key)
    known = {part.name: part for part in held.parts} if held else {}
    part_names = _part_names(checkpoint.config.num_hidden_layers)
    writer = _PartWriter(checkpoint, store, dtype, quantization)
    manifest = _manifest(checkpoint, key, dtype, quantization)
    for done, name in enumerate(part_names):
        progress(name, done, len(part_names))
        part = known.get(name)
        if part is None or not (store.is_intact(part.graph) and store.is_intact(part.weights)):
            if not checkpoint.family.checked and not manifest.exported:
                _refuse_unless_exact(checkpoint)
            part = writer.write(name)
            manifest = replace(manifest, exported=manifest.exported + 1)
        manifest = replace(manifest, parts=(*manifest.parts, part))
        if manifest.exported:
            store.put_manifest(manifest)  # an export that stops here goes on here
    progress("", len(part_names), len(part_names))
    return manifest


def part_graph(
    checkpoint: Checkpoint, store: LayerStore, dtype: str, quantization: Quantization, name: str
) -> tuple[Blob, int]:
    """A part's graph alone, and how many bytes its weight file would have; reads no weights."""
    template, _ = _PartWriter(checkpoint, store, dtype, quantization).template(name)
    arrays = [array for weight in template.weights for array in weight.arrays]
    return store.put(template.graph), stored_bytes(tuple(arrays))


def manifest_key(checkpoint: Checkpoint, dtype: str, quantization: Quantization) -> str:
    """Digest of all that decides the parts' content."""
    decides = {
        "checkpoint": checkpoint.identity,
        "dtype": dtype,
        "quantization": quantization.name,
        "exporter": _EXPORTER,
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers", "onnxscript")},
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


class _PartWriter:
    """Writes parts; a graph is traced when the first part of its kind needs it."""

    def __init__(self, checkpoint: Checkpoint, store: LayerStore, dtype: str, quantization: Quantization) -> None:
        self._checkpoint, self._store, self._quantization = checkpoint, store, quantization
        self._dtype, self._torch_dtype = np.dtype(dtype), getattr(torch, dtype)
        self._templates: dict[Hashable, Template] = {}

    def write(self, name: str) -> Part:
        template, index = self.template(name)
        weights = self._store.put(template.fill(lambda own: self._read(own, index), self._quantization))
        return Part(name=name, graph=self._store.put(template.graph), weights=weights)

    def template(self, name: str) -> tuple[Template, int | None]:
        """A part's graph, and which layer it is of."""
        index = int(name.removeprefix("layer.")) if name.startswith("layer.") else None

        def form_of(parameter: str, role: Role) -> Form | None:
            return self._quantization.form(role, self._read(parameter, index).form())

        kind: Hashable = name
        if index is not None:
            kind = (self._kinds[index], tuple(self._read(parameter, index).form() for parameter in self._first_layer))
        if kind not in self._templates:
            self._templates[kind] = to_template(self._trace(name, index), form_of, self._dtype)
        return self._templates[kind], index

    def _read(self, parameter: str, index: int | None) -> StoredParameter:
        """What is called `parameter` in the first layer, of layer `index`."""
        layers = f"{self._checkpoint.family.layers}."
        own = parameter if index is None else parameter.replace(f"{layers}0.", f"{layers}{index}.", 1)
        return self._checkpoint.parameter(own)

    def _trace(self, name: str, index: int | None) -> ir.Model:
        config, family = self._checkpoint.config, self._checkpoint.family
        if index is not None:
            return trace_layer(config, family, index, self._torch_dtype)
        if name == "head":
            return trace_head(config, family, self._torch_dtype)
        return trace_embedding(config, self._torch_dtype)

    @cached_property
    def _first_layer(self) -> tuple[str, ...]:
        """Names of the parameters of layer 0, which stand for those of each layer."""
        marker = f"{self._checkpoint.family.layers}.0."
        return tuple(name for name in parameter_shapes(skeleton(self._checkpoint.config)) if marker in name)

    @cached_property
    def _kinds(self) -> list[Hashable]:
        return layer_kinds(self._checkpoint.config, self._checkpoint.family)


def _refuse_unless_exact(checkpoint: Checkpoint) -> None:
    from hyperlane.model import check  # which exports a sample in its turn

    check.refuse_unless_exact(checkpoint)


def _part_names(layers: int) -> list[str]:
    return ["embedding", *(f"layer.{i}" for i in range(layers)), "head"]


def _manifest(checkpoint: Checkpoint, key: str, dtype: str, quantization: Quantization) -> Manifest:
    return Manifest(
        key=key,
        family=checkpoint.config.model_type,
        dtype=dtype,
        quantization=quantization.name,
        layers=checkpoint.config.num_hidden_layers,
        hidden_size=checkpoint.config.hidden_size,
        vocab_size=checkpoint.config.vocab_size,
        parts=(),
        exported=0,
    )
