"""A few of a model's own layers as graphs without weights: what a worker is timed with, before anything is exported."""

import hashlib
from dataclasses import dataclass, replace
from functools import partial

from hyperlane.artifacts import Blob, Manifest, Part
from hyperlane.model.assemble import assemble
from hyperlane.model.export import manifest_key, part_graph
from hyperlane.model.source import Checkpoint
from hyperlane.model.store import LayerStore
from hyperlane.quantization import Quantization

STREAMED_BYTES = 96 << 20  # so many weights do not fit a processor's cache
_TIMED = 1  # the layer whose copies are timed: the first one may be of another kind


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeGraph:
    """`layers` copies of one layer, and the head if `last`, as a shard that begins with hidden states."""

    graph: bytes
    weights: tuple[Blob, ...]
    layers: int
    last: bool


def probe_graphs(
    checkpoint: Checkpoint,
    store: LayerStore,
    dtype: str,
    quantization: Quantization,
    *,
    operators: bool,
    kv_bits: int,
    fused: bool = True,
    on_gpu: bool = False,
) -> tuple[ProbeGraph, ...]:
    """Several layers, one layer, and one with the head, as `assemble` makes them.

    Traces them unless the store has their graphs.
    """
    manifest = _manifest(checkpoint, store, dtype, quantization)
    layer, head = manifest.parts
    many = max(2, min(manifest.layers, -(-STREAMED_BYTES // max(layer.weights.bytes, 1))))
    make = partial(_graph, manifest, store, operators=operators, kv_bits=kv_bits, fused=fused, on_gpu=on_gpu)
    return make(layer, many, None), make(layer, 1, None), make(layer, 1, head)


def _graph(
    manifest: Manifest,
    store: LayerStore,
    layer: Part,
    layers: int,
    head: Part | None,
    *,
    operators: bool,
    kv_bits: int,
    fused: bool,
    on_gpu: bool,
) -> ProbeGraph:
    """Every copy has a weight file of its own, so that none is in the cache for another."""
    copies = [replace(layer, name=f"layer.{i}", weights=_own(layer, i)) for i in range(layers + 2)]
    end = replace(head or layer, name="head", weights=_own(head or layer, layers + 2))
    whole = replace(manifest, layers=layers + (1 if head else 2), parts=())
    parts = (replace(layer, name="embedding"), *copies[: whole.layers], end)
    whole = replace(whole, parts=parts)
    graph = assemble(whole, store, 1, 1 + layers, operators=operators, kv_bits=kv_bits, fused=fused, on_gpu=on_gpu)
    used = [part.weights for part in parts[2 : 2 + layers]] + ([end.weights] if head else [])
    return ProbeGraph(graph=graph, weights=tuple(used), layers=layers, last=head is not None)


def _own(part: Part, copy: int) -> Blob:
    name = hashlib.sha256(f"{part.weights.sha256} {copy}".encode()).hexdigest()
    return Blob(sha256=name, bytes=part.weights.bytes)


def _manifest(checkpoint: Checkpoint, store: LayerStore, dtype: str, quantization: Quantization) -> Manifest:
    """A layer and the head: their graphs, and their weight files' sizes."""
    whole = manifest_key(checkpoint, dtype, quantization)
    key = hashlib.sha256(f"probe of {whole}".encode()).hexdigest()
    known = store.manifest(key)
    if known is not None and all(store.is_intact(part.graph) for part in known.parts):
        return known
    config, parts = checkpoint.config, []
    for name in (f"layer.{min(_TIMED, config.num_hidden_layers - 1)}", "head"):
        graph, weight_bytes = part_graph(checkpoint, store, dtype, quantization, name)
        made_up = Blob(sha256=hashlib.sha256(f"{key} {name}".encode()).hexdigest(), bytes=weight_bytes)
        parts.append(Part(name=name, graph=graph, weights=made_up))
    manifest = Manifest(
        key=key,
        family=config.model_type,
        dtype=dtype,
        quantization=quantization.name,
        layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        parts=tuple(parts),
    )
    store.put_manifest(manifest)
    return manifest
