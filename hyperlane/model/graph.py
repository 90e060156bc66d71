"""A traced part without its weights: each becomes a place in a file that any layer of the kind can fill."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from hyperlane.errors import ModelError
from hyperlane.model.trace import WEIGHT_PREFIX
from hyperlane.quantization import Array, Quantization, Role

WEIGHT_FILE = "weights"  # the external file that a part's graph names, until it is assembled into a shard
ALIGNMENT = 64  # of each array in a weight file: a cache line


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """One parameter of a part, and how it is stored."""

    parameter: str  # HF's name
    shape: tuple[int, ...]
    role: Role | None  # None: as it is
    arrays: tuple[Array, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A part's graph (ONNX, referring to one external file) and the parameters of that file, in order."""

    graph: bytes
    weights: tuple[Weight, ...]
    dtype: np.dtype[Any]

    def fill(self, read: Callable[[str], torch.Tensor], quantization: Quantization) -> Iterator[memoryview]:
        """The weight file in chunks, holding one tensor at a time."""
        for weight in self.weights:
            for array in self._pack(weight, read, quantization):
                yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
                yield memoryview(bytes(-array.nbytes % ALIGNMENT))

    def _pack(
        self, weight: Weight, read: Callable[[str], torch.Tensor], quantization: Quantization
    ) -> Iterator[NDArray[Any]]:
        tensor = read(weight.parameter)
        found, expected = list(tensor.shape), list(weight.shape)
        if found != expected:
            raise ModelError(f"{weight.parameter} has shape {found} where the config says {expected}")
        values = tensor.float().numpy().astype(self.dtype, copy=False)
        yield from (values,) if weight.role is None else quantization.pack(weight.role, values)


def stored(
    role: Role | None, shape: tuple[int, ...], dtype: np.dtype[Any], quantization: Quantization
) -> tuple[Array, ...]:
    """The arrays of a parameter that the graph uses in the way of `role`."""
    if role is None:
        return (Array(suffix="", shape=shape, dtype=dtype),)
    return quantization.layout(role, (shape[0], shape[1]), dtype)


def stored_bytes(arrays: tuple[Array, ...]) -> int:
    """What they take in a weight file."""
    return sum(array.bytes + -array.bytes % ALIGNMENT for array in arrays)


def to_template(model: ir.Model, quantization: Quantization, dtype: np.dtype[Any]) -> Template:
    """Take the weights out of a traced part; changes `model`."""
    graph, weights, offset = model.graph, [], 0
    for value in [v for v in graph.initializers.values() if (v.name or "").startswith(WEIGHT_PREFIX)]:
        name, shape = str(value.name), tuple(int(d) for d in value.shape or ())
        parameter = name.removeprefix(WEIGHT_PREFIX)
        if value.const_value is None or value.const_value.dtype not in (
            ir.DataType.FLOAT,
            ir.DataType.FLOAT16,
        ):
            raise ModelError(f"{parameter} is no floating-point tensor")
        use = _use_of(value)
        role = use[0] if use else None
        arrays = stored(role, shape, dtype, quantization)
        replacements = []
        for array in arrays:
            replacements.append(_external(name + array.suffix, array, offset))
            offset += stored_bytes((array,))
        _replace(graph, value, replacements, use, quantization)
        weights.append(Weight(parameter=parameter, shape=shape, role=role, arrays=arrays))
    proto = ir.to_proto(model)
    proto.ClearField("metadata_props")
    for node in proto.graph.node:  # stack traces with the paths of this machine
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    del proto.graph.value_info[:]
    return Template(graph=proto.SerializeToString(deterministic=True), weights=tuple(weights), dtype=dtype)


_Use = tuple[Role, list[ir.Node], list[ir.Node]]  # the role, the nodes to replace, the transposes between


def _use_of(value: ir.Value) -> _Use | None:
    """How the graph uses a rank-2 weight, if it only multiplies by its transpose or only looks rows up."""
    nodes = [use.node for use in value.uses()]
    if value.shape is None or len(value.shape) != 2 or not nodes:
        return None
    if all(n.op_type == "Gather" and n.inputs[0] is value and _axis(n) == 0 for n in nodes):
        return "gather", nodes, []
    if all(n.op_type == "Transpose" for n in nodes):
        products = [use.node for n in nodes for use in n.outputs[0].uses()]
        transposed = {n.outputs[0] for n in nodes}
        if all(n.op_type == "MatMul" and n.inputs[1] in transposed for n in products):
            return "matmul", products, nodes
    return None


def _axis(gather: ir.Node) -> int:
    return gather.attributes["axis"].as_int() if "axis" in gather.attributes else 0


def _replace(
    graph: ir.Graph,
    value: ir.Value,
    stored_values: list[ir.Value],
    use: _Use | None,
    quantization: Quantization,
) -> None:
    """Let the nodes that use `value` read its stored form instead."""
    if use is None:
        value.replace_all_uses_with(stored_values[0])
    else:
        role, nodes, transposes = use
        shape = (int(value.shape[0]), int(value.shape[1]))
        operator = quantization.operator(role, shape)
        for node in nodes:
            first, *rest = stored_values
            inputs = [first, node.inputs[1], *rest] if role == "gather" else [node.inputs[0], *stored_values]
            attributes = [ir.AttrInt64(name, number) for name, number in operator.attributes.items()]
            new = ir.Node(operator.domain, operator.name, inputs, attributes, name=node.name)
            old_output, new_output = node.outputs[0], new.outputs[0]
            new_output.name, new_output.shape, new_output.type = (
                old_output.name,
                old_output.shape,
                old_output.type,
            )
            graph.insert_before(node, new)
            old_output.replace_all_uses_with(new_output, replace_graph_outputs=True)
            graph.remove(node, safe=True)
        graph.remove(transposes, safe=True)
    del graph.initializers[str(value.name)]
    for stored_value in stored_values:
        graph.register_initializer(stored_value)


def _external(name: str, array: Array, offset: int) -> ir.Value:
    data_type = ir.DataType.from_numpy(array.dtype)
    shape = ir.Shape(array.shape)
    tensor = ir.ExternalTensor(WEIGHT_FILE, offset, array.bytes, data_type, shape=shape, name=name)
    return ir.Value(name=name, shape=shape, type=ir.TensorType(data_type), const_value=tensor)
