"""A shard's ONNX graph from the parts in the store: chained nodes, weights by reference, in milliseconds.

What the layers of a kind compute from the step's inputs alone (rotary tables) is computed once a shard.
"""

from collections.abc import Iterable, Mapping

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto
from onnx.helper import make_attribute, make_tensor_value_info

from hyperlane.artifacts import Blob, Manifest, Part
from hyperlane.model.attention import position_bytes
from hyperlane.model.lower import lower
from hyperlane.model.store import LayerStore

CANDIDATES = 64  # how many of the largest logits the last worker returns, with the logsumexp of all

_STEP = {"position_ids": (TensorProto.INT64, ["B", "S"]), "row_slots": (TensorProto.INT64, ["S"])}
_LOWERED_STEP = {
    "position_ids": (TensorProto.INT64, ["B", "S"]),
    "seqlens_k": (TensorProto.INT32, ["B"]),
    "total_sequence_length": (TensorProto.INT32, []),
}
_UNFUSED_STEP = {"position_ids": (TensorProto.INT64, ["B", "S"])}
_HEAD = ("logits", "candidate_ids", "candidate_logits", "logsumexp")


def shard_parts(manifest: Manifest, start: int, stop: int) -> tuple[Part, ...]:
    """The parts of layers start to stop; the first shard has the embedding too, the last one the head."""
    if not 0 <= start < stop <= manifest.layers:
        raise ValueError(f"there is no shard {start}:{stop} of {manifest.layers} layers")
    first, last = (0 if start == 0 else start + 1), (stop + 2 if stop == manifest.layers else stop + 1)
    return manifest.parts[first:last]


def shard_blobs(manifest: Manifest, start: int, stop: int) -> tuple[Blob, ...]:
    """The weight files that a worker needs to hold for a shard, each once."""
    return tuple(dict.fromkeys(part.weights for part in shard_parts(manifest, start, stop)))


def is_ragged(manifest: Manifest, *, operators: bool) -> bool:
    """Whether a shard's attention takes rows of any slots, so that a step is one call."""
    return operators and manifest.dtype == "float32"


def assemble(
    manifest: Manifest,
    store: LayerStore,
    start: int,
    stop: int,
    *,
    operators: bool = False,
    kv_bits: int = 32,
    fused: bool = True,
    on_gpu: bool = False,
) -> bytes:
    """The shard's ONNX file; it names each weight file by its SHA-256, to be found in the same folder.

    operators: whether the worker has those of csrc/ops, which are for FP32; else ONNX Runtime's own take their place.
    on_gpu: whether the worker has the operators of csrc/cuda_ops, which are for FP16.
    fused: attention as one operator of ONNX Runtime; else in pieces, as a GPU needs it in FP32.
    kv_bits: of the numbers in the cache of workers with operators: 32, 16 or 8. Others hold the activations' type.

    Inputs: `input_ids` int64 [B, S] or `hidden_in` [B, S, D]; `position_ids` int64 [B, S]; in the last shard
    `output_rows` int64 [N]. With operators B is 1, `row_slots` int64 [S] says whose each row is, and layer i has
    `past_key.i` and `past_value.i` uint8 [slots, heads, L, bytes a position]; L in whole tiles (see attention.py).
    Without, caches [B, heads, L, head_dim]; and for ONNX Runtime's attention `seqlens_k` int32 [B] and
    `total_sequence_length`.
    Outputs: `hidden_out` [B, S, D], or `logits` [N, V], `candidate_ids` and `candidate_logits` [N, K],
    `logsumexp` [N]; for layer i `present_key.i` and `present_value.i`.
    Raises StoreError where the store lacks a graph.
    """
    parts = shard_parts(manifest, start, stop)
    graphs = {blob.sha256: onnx.load_from_string(store.read(blob)) for blob in {part.graph for part in parts}}
    shard = ModelProto(ir_version=max(model.ir_version for model in graphs.values()))
    shard.graph.name = f"layers {start} to {stop}"
    lowered = not is_ragged(manifest, operators=operators)
    first, last = start == 0, stop == manifest.layers
    step = _STEP if not lowered else _LOWERED_STEP if fused else _UNFUSED_STEP
    _declare(shard, manifest, graphs.values(), step, first=first, last=last)
    hidden, written = "hidden_in", set[str]()
    for part in parts:
        produced = "hidden_out" if part is parts[-1] else f"{part.name}/hidden_out"
        chained = {"hidden_in": hidden, "hidden_out": produced}
        _append(shard.graph, part, graphs[part.graph.sha256].graph, chained, written)
        hidden = produced
    if lowered:
        lower(shard, manifest.dtype, fused=fused, on_gpu=on_gpu)
    else:
        _hold_bytes(shard.graph, kv_bits)
    content: bytes = shard.SerializeToString(deterministic=True)
    return content


def _declare(
    shard: ModelProto,
    manifest: Manifest,
    models: Iterable[ModelProto],
    step: Mapping[str, tuple[int, list[str]]],
    *,
    first: bool,
    last: bool,
) -> None:
    """The inputs and outputs of the shard, but those of the cache, which come with each layer."""
    versions = {opset.domain: opset for model in models for opset in model.opset_import}
    shard.opset_import.extend(versions[domain] for domain in sorted(versions))
    hidden_type = TensorProto.FLOAT16 if manifest.dtype == "float16" else TensorProto.FLOAT
    hidden = (hidden_type, ["B", "S", manifest.hidden_size])
    inputs = {"input_ids": (TensorProto.INT64, ["B", "S"])} if first else {"hidden_in": hidden}
    inputs |= dict(step) | ({"output_rows": (TensorProto.INT64, ["N"])} if last else {})
    K = min(CANDIDATES, manifest.vocab_size)
    outputs = (
        {
            "logits": (TensorProto.FLOAT, ["N", manifest.vocab_size]),
            "candidate_ids": (TensorProto.INT64, ["N", K]),
            "candidate_logits": (TensorProto.FLOAT, ["N", K]),
            "logsumexp": (TensorProto.FLOAT, ["N"]),
        }
        if last
        else {"hidden_out": hidden}
    )
    shard.graph.input.extend(make_tensor_value_info(name, *value) for name, value in inputs.items())
    shard.graph.output.extend(make_tensor_value_info(name, *value) for name, value in outputs.items())


def _append(shard: GraphProto, part: Part, graph: GraphProto, names: dict[str, str], written: set[str]) -> None:
    """Add a part's nodes behind those already there; `names` says how its ends are called in the shard.

    `written` holds the names that the shard has already, of weights and nodes that its parts share.
    """
    names = names | {name: name for name in ("input_ids", "output_rows", *_STEP, *_HEAD)}
    for value in (*graph.input, *graph.output):
        if value.name.startswith(("past_", "present_")):
            names[value.name] = f"{value.name}.{part.name.removeprefix('layer.')}"
    _append_cache(shard, graph, names)
    shared, kind = _shared_values(graph), part.graph.sha256[:12]
    for tensor in graph.initializer:
        names[tensor.name] = f"{kind if tensor.name in shared else part.name}/{tensor.name}"
        if names[tensor.name] not in written:
            written.add(names[tensor.name])
            shard.initializer.append(_located(tensor, names[tensor.name], part.weights))
    for node in graph.node:
        scope = kind if node.output[0] in shared else part.name
        names |= {name: f"{scope}/{name}" for name in node.output if name not in names}
        if names[node.output[0]] not in written:
            written.update(names[name] for name in node.output)
            shard.node.append(_renamed(node, scope, names))


def _append_cache(shard: GraphProto, graph: GraphProto, names: dict[str, str]) -> None:
    """Declare a layer's keys and values: [B, heads, L, head_dim], the same before and after the step."""
    for value in graph.input:
        if value.name.startswith("past_"):
            kind = value.type.tensor_type
            _, heads, _, head_dim = (dimension.dim_value for dimension in kind.shape.dim)
            shape = ["B", heads, "L", head_dim]
            present = names[value.name.replace("past_", "present_")]
            shard.input.append(make_tensor_value_info(names[value.name], kind.elem_type, shape))
            shard.output.append(make_tensor_value_info(present, kind.elem_type, shape))


def _hold_bytes(graph: GraphProto, bits: int) -> None:
    """The caches as bytes, with numbers of so many bits."""
    for node in graph.node:
        if node.op_type == "Attention":
            node.attribute.append(make_attribute("bits", bits))
    for value in (*graph.input, *graph.output):
        if value.name.startswith(("past_", "present_")):
            _, heads, length, head_dim = value.type.tensor_type.shape.dim
            shape = ["slots", heads.dim_value, length.dim_param, position_bytes(head_dim.dim_value, bits)]
            value.CopyFrom(make_tensor_value_info(value.name, TensorProto.UINT8, shape))


def _shared_values(graph: GraphProto) -> set[str]:
    """Names of the constants, and of what follows from them and the step's inputs alone."""
    shared = {tensor.name for tensor in graph.initializer if not tensor.external_data} | set(_STEP)
    for node in graph.node:
        if all(name in shared or not name for name in node.input):
            shared.update(node.output)
    return shared - set(_STEP)


def _located(tensor: TensorProto, name: str, weights: Blob) -> TensorProto:
    copy = TensorProto()
    copy.CopyFrom(tensor)
    copy.name = name
    for entry in copy.external_data:
        if entry.key == "location":
            entry.value = weights.sha256
    return copy


def _renamed(node: NodeProto, scope: str, names: dict[str, str]) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.name = f"{scope}/{node.name}"
    copy.input[:] = [names[name] if name else "" for name in node.input]
    copy.output[:] = [names[name] if name else "" for name in node.output]
    return copy
