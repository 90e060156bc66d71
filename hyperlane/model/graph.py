"""A traced part without its weights: each becomes a place in a file that any layer of the kind can fill."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from hyperlane.errors import ModelError
from hyperlane.model.fuse import FormOf, Packed, use_operators
from hyperlane.model.source import StoredParameter
from hyperlane.model.trace import WEIGHT_PREFIX
from hyperlane.quantization import Array, Form, Quantization, Role, reference

WEIGHT_FILE = "weights"  # the external file that a part's graph names, until it is assembled into a shard
ALIGNMENT = 64  # of each array in a weight file: a cache line

Read = Callable[[str], StoredParameter]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """Parameters of a part that are stored together: one as it is, or matrices in blocks."""

    parameters: tuple[str, ...]  # HF's names
    shapes: tuple[tuple[int, ...], ...]
    form: Form | None  # None: one, as it is, or its transpose
    transposed: bool
    arrays: tuple[Array, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A part's graph (ONNX, referring to one external file) and the parameters of that file, in order."""

    graph: bytes
    weights: tuple[Weight, ...]
    dtype: np.dtype[Any]

    def fill(self, read: Read, quantization: Quantization) -> Iterator[memoryview]:
        """The weight file in chunks, holding the parameters that are stored together."""
        for weight in self.weights:
            for array in self._arrays(weight, read, quantization):
                size = 0
                for part in array:
                    size += part.nbytes
                    yield np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
                yield memoryview(bytes(-size % ALIGNMENT))

    def _arrays(self, weight: Weight, read: Read, quantization: Quantization) -> list[list[NDArray[Any]]]:
        """Each array in its parts, one a parameter."""
        if weight.form is None:
            values = read(weight.parameters[0]).values()
            _check(weight, 0, values.shape)
            return [[(values.T if weight.transposed else values).astype(self.dtype, copy=False)]]
        packed = []
        for i, name in enumerate(weight.parameters):
            blocks = quantization.pack(weight.form, read(name))
            _check(weight, i, blocks.codes_NK.shape)
            packed.append(reference.tiled(blocks))
        return [list(parts) for parts in zip(*packed, strict=True)]


def stored(
    role: Role | None, shape: tuple[int, ...], dtype: np.dtype[Any], quantization: Quantization, source: Form | None
) -> tuple[Array, ...]:
    """The arrays of a parameter that the graph uses in the way of `role`."""
    form = None if role is None else quantization.form(role, source)
    return (Array(suffix="", shape=shape, dtype=dtype),) if form is None else form.arrays(((shape[0], shape[1]),))


def stored_bytes(arrays: tuple[Array, ...]) -> int:
    """What they take in a weight file."""
    return sum(array.bytes + -array.bytes % ALIGNMENT for array in arrays)


def to_template(model: ir.Model, form_of: FormOf, dtype: np.dtype[Any]) -> Template:
    """Take the weights out of a traced part; changes `model`. `form_of(HF's name, role)` as in `fuse`."""
    graph, weights, offset = model.graph, list[Weight](), 0
    values = [v for v in graph.initializers.values() if (v.name or "").startswith(WEIGHT_PREFIX)]
    packed = use_operators(model, lambda name, role: form_of(name.removeprefix(WEIGHT_PREFIX), role))
    groups = {value: group for group in packed for value in group.weights}
    for value in values:
        group = groups.get(value)
        if group is not None and value is not group.weights[0]:
            continue  # stored with the first
        weight = _weight(value, group, dtype, transposed=group is None and _drop_transposes(graph, value))
        for i, array in enumerate(weight.arrays):
            place = value if group is None else group.arrays[i]
            _locate(graph, place, array, offset)
            offset += stored_bytes((array,))
        weights.append(weight)
    return Template(graph=_serialized(model), weights=tuple(weights), dtype=dtype)


def _drop_transposes(graph: ir.Graph, value: ir.Value) -> bool:
    """Whether the graph multiplies by a matrix's transpose only: then that is stored, as ONNX multiplies by it."""
    nodes = [use.node for use in value.uses()]
    if len(value.shape or ()) != 2 or not nodes or any(node.op_type != "Transpose" for node in nodes):
        return False
    for node in nodes:
        node.outputs[0].replace_all_uses_with(value)
    graph.remove(nodes, safe=True)
    return True


def _weight(value: ir.Value, group: Packed | None, dtype: np.dtype[Any], *, transposed: bool) -> Weight:
    members = (value,) if group is None else group.weights
    for member in members:
        if member.const_value is None or member.const_value.dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
            raise ModelError(f"{member.name} is no floating-point tensor")
    shapes = tuple(tuple(int(d) for d in member.shape or ()) for member in members)
    form = None if group is None else group.form
    arrays = (
        (Array(suffix="", shape=shapes[0][::-1] if transposed else shapes[0], dtype=dtype),)
        if form is None
        else form.arrays(tuple((shape[0], shape[1]) for shape in shapes))
    )
    names = tuple(str(member.name).removeprefix(WEIGHT_PREFIX) for member in members)
    return Weight(parameters=names, shapes=shapes, form=form, transposed=transposed, arrays=arrays)


def _locate(graph: ir.Graph, value: ir.Value, array: Array, offset: int) -> None:
    """Let a value's content be an array of the weight file."""
    kind = ir.DataType.from_numpy(array.dtype)
    value.shape = shape = ir.Shape(array.shape)
    value.const_value = ir.ExternalTensor(WEIGHT_FILE, offset, array.bytes, kind, shape=shape, name=str(value.name))
    if str(value.name) not in graph.initializers:
        graph.register_initializer(value)


def _serialized(model: ir.Model) -> bytes:
    proto = ir.to_proto(model)
    proto.ClearField("metadata_props")
    for node in proto.graph.node:  # stack traces with the paths of this machine
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    del proto.graph.value_info[:]
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def _check(weight: Weight, index: int, found: tuple[int, ...]) -> None:
    expected = weight.shapes[index]
    if found != expected:
        name = weight.parameters[index]
        raise ModelError(f"{name} has shape {list(found)} where the config says {list(expected)}")
