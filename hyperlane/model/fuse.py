"""Matrix products and look-ups of a traced part become the operators of csrc/ops, with what stands around them.

`Linear` takes up to three weights that read the same rows, and before, behind and between them an RMS norm, biases,
a residual, silu(gate) * up; `Attention` the rotary embedding of its queries and keys. What is not recognized stays as
it is, so a family is never computed differently.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from hyperlane.quantization import Form, Role

DOMAIN = "hyperlane"
MOST_OUTPUTS = 3  # of a Linear

FormOf = Callable[[str, Role], Form | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """Matrices that are stored together, and the values that stand for their arrays in the graph."""

    weights: tuple[ir.Value, ...]
    form: Form
    arrays: tuple[ir.Value, ...]  # codes, scales, minima: still without content


def use_operators(model: ir.Model, form_of: FormOf) -> tuple[Packed, ...]:
    """Rewrite in place; `form_of(initializer's name, role)` says how a matrix is stored, or None to leave it."""
    graph = model.graph
    packed = [*_embeddings(graph, form_of), *_products(graph, form_of)]
    _candidates(graph)
    _drop_reshapes(graph)
    _drop_batch_of_one(graph)
    _attention(graph)
    if any(node.domain == DOMAIN for node in graph):
        model.opset_imports[DOMAIN] = 1
        RemoveUnusedNodesPass()(model)
    return tuple(packed)


# --- look-ups ---------------------------------------------------------------------------------------------------


def _embeddings(graph: ir.Graph, form_of: FormOf) -> list[Packed]:
    found = []
    for node in list(graph):
        weight = node.inputs[0] if node.op_type == "Gather" else None
        if weight is None or not _is_matrix(weight) or len(weight.uses()) != 1 or _integer(node, "axis", 0) != 0:
            continue
        form = form_of(str(weight.name), "gather")
        if form is not None:
            rows, width = _shape(weight)
            packed = _pack([weight], form)
            attributes = {"bits": form.bits, "rows": rows, "width": width}
            embed = _node("Embed", [node.inputs[1], *_three(packed.arrays)], attributes, node.name)
            _put(graph, embed, before=node)
            _take_over(node.outputs[0], embed.outputs[0])
            found.append(packed)
    return found


# --- products ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Product:
    node: ir.Node
    weight: ir.Value
    form: Form

    @property
    def rows(self) -> ir.Value:
        return _value(self.node, 0)

    @property
    def output(self) -> ir.Value:
        return self.node.outputs[0]


def _products(graph: ir.Graph, form_of: FormOf) -> list[Packed]:
    found = [product for node in graph if (product := _product(node, form_of)) is not None]
    packed = []
    while found:
        together = [p for p in found if p.rows is found[0].rows and p.form == found[0].form]
        group = _gate_pair(together) or together[:MOST_OUTPUTS]
        packed.append(_linear(graph, group))
        found = [p for p in found if p not in group]
    return packed


def _product(node: ir.Node, form_of: FormOf) -> _Product | None:
    """x @ W^T with a matrix of the checkpoint."""
    transpose = _producer(node, 1) if node.op_type == "MatMul" else None
    if transpose is None or transpose.op_type != "Transpose":
        return None
    weight = _value(transpose, 0)
    if not _is_matrix(weight) or len(weight.uses()) != 1 or len(transpose.outputs[0].uses()) != 1:
        return None
    form = form_of(str(weight.name), "matmul")
    return None if form is None else _Product(node, weight, form)


def _linear(graph: ir.Graph, group: list[_Product]) -> Packed:
    packed = _pack([product.weight for product in group], group[0].form)
    outputs = [product.output for product in group]
    before = group[0].node
    gated = _gate_pair(group)
    bias = residual = None
    if gated:
        outputs = [_gated_output(*gated)]
    else:
        biases = [_bias(output) for output in outputs]
        if all(biases):
            outputs = [add.outputs[0] for add, _ in filter(None, biases)]
            bias = _joined(graph, [value for _, value in filter(None, biases)], before)
        if len(outputs) == 1 and (add := _residual(outputs[0])) is not None:
            residual = _other(add, outputs[0])
            outputs, before = [add.outputs[0]], add
    norm = _norm(group)
    rows, weight, epsilon = norm or (group[0].rows, None, 0.0)
    sizes = [_shape(product.weight)[0] for product in group][: len(outputs)] + [0] * MOST_OUTPUTS
    attributes = {"bits": group[0].form.bits, "gated": int(bool(gated)), "width": _shape(group[0].weight)[1]}
    attributes["rank"] = 3  # of its rows
    attributes |= {f"size{i}": sizes[i] for i in range(MOST_OUTPUTS)}
    inputs = [rows, *_three(packed.arrays), weight, bias, residual]
    linear = _node("Linear", inputs, attributes, group[0].node.name, outputs=len(outputs))
    linear.attributes["epsilon"] = ir.AttrFloat32("epsilon", epsilon)
    _put(graph, linear, before=before)
    for old, new in zip(outputs, linear.outputs, strict=True):
        _take_over(old, new)
    return packed


def _gate_pair(products: Sequence[_Product]) -> list[_Product] | None:
    """The two products of which one is the gate: silu(gate) * up, each used for nothing else."""
    for gate in products:
        for up in products:
            if gate is not up and _shape(gate.weight) == _shape(up.weight) and _silu_product(gate, up) is not None:
                return [gate, up]
    return None


def _gated_output(gate: _Product, up: _Product) -> ir.Value:
    product = _silu_product(gate, up)
    assert product is not None
    return product.outputs[0]


def _silu_product(gate: _Product, up: _Product) -> ir.Node | None:
    product = _only_user(up.output, "Mul")
    silu = _other(product, up.output).producer() if product is not None else None
    if silu is None or silu.op_type != "Mul" or _only_user(silu.outputs[0], "Mul") is not product:
        return None
    users = {use.node for use in gate.output.uses()}
    sigmoid = next((node for node in users if node.op_type == "Sigmoid"), None)
    if sigmoid is None or users != {sigmoid, silu} or _only_user(sigmoid.outputs[0], "Mul") is not silu:
        return None
    return product


def _bias(output: ir.Value) -> tuple[ir.Node, ir.Value] | None:
    add = _only_user(output, "Add")
    if add is None:
        return None
    other = _other(add, output)
    return (add, other) if other.is_initializer() and len(_shape(other)) == 1 else None


def _residual(output: ir.Value) -> ir.Node | None:
    """The sum with rows that something else computed, if it is this output's only use."""
    add = _only_user(output, "Add")
    if add is None:
        return None
    other = _other(add, output)
    known = other.shape is not None and output.shape is not None and list(other.shape) == list(output.shape)
    return add if known and not other.is_initializer() and other is not output else None


def _norm(group: Sequence[_Product]) -> tuple[ir.Value, ir.Value, float] | None:
    """x, weight and epsilon where all that reads weight * (x / sqrt(mean(x^2) + epsilon)) is this group."""
    normed = group[0].rows
    scale = normed.producer()
    if scale is None or scale.op_type != "Mul" or {u.node for u in normed.uses()} != {p.node for p in group}:
        return None
    weight = next((v for v in scale.inputs if v is not None and v.is_initializer()), None)
    quotient = _other(scale, weight).producer() if weight is not None and len(_shape(weight)) == 1 else None
    root = _producer(quotient, 1) if quotient is not None and quotient.op_type == "Div" else None
    summed = _producer(root, 0) if root is not None and root.op_type == "Sqrt" else None
    if quotient is None or weight is None or summed is None or summed.op_type != "Add":
        return None
    summands = [_producer(summed, i) for i in range(2)]
    mean = next((node for node in summands if node is not None and node.op_type == "ReduceMean"), None)
    square = _producer(mean, 0) if mean is not None else None
    if mean is None or square is None or square.op_type != "Pow" or _value(square, 0) is not _value(quotient, 0):
        return None
    epsilon, power, axes = _constant(_other(summed, mean.outputs[0])), _constant(_value(square, 1)), mean.inputs[1]
    if epsilon is None or power != 2.0 or axes is None or _constant(axes) != -1 or _integer(mean, "keepdims", 1) != 1:
        return None
    return _value(quotient, 0), weight, epsilon


# --- candidates -------------------------------------------------------------------------------------------------


def _candidates(graph: ir.Graph) -> None:
    """The largest logits and the logsumexp of all, together."""
    for top in [node for node in graph if node.op_type == "TopK"]:
        logits, count = _value(top, 0), _constant(_value(top, 1))
        users = (use.node for use in logits.uses())
        total = next((node for node in users if node.op_type == "ReduceLogSumExp"), None)
        if total is not None and count is not None:
            node = _node("Candidates", [logits], {"count": int(count)}, top.name, outputs=3)
            _put(graph, node, before=top)
            for old, new in zip((top.outputs[1], top.outputs[0], total.outputs[0]), node.outputs, strict=True):
                _take_over(old, new)


def _drop_batch_of_one(graph: ir.Graph) -> None:
    """Rows [N, K] that became [1, N, K] for a product and its result [N, V] again: a Linear takes them as they are."""
    for linear in [node for node in graph if node.op_type == "Linear"]:
        widen, uses = _producer(linear, 0), list(linear.outputs[0].uses())
        if widen is None or widen.op_type != "Unsqueeze" or len(linear.outputs) > 1 or linear.inputs[6] is not None:
            continue
        if _constant(_value(widen, 1)) == 0 and uses and all(use.node.op_type == "Squeeze" for use in uses):
            linear.replace_input_with(0, _value(widen, 0))
            linear.attributes["rank"] = ir.AttrInt64("rank", 2)
            for use in uses:
                _take_over(use.node.outputs[0], linear.outputs[0])


# --- attention ----------------------------------------------------------------------------------------------------


def _attention(graph: ir.Graph) -> None:
    """Rows of any slots, each at its position, instead of a batch of sequences: `row_slots` says whose a row is."""
    fused = [node for node in graph if node.op_type == "GroupQueryAttention"]
    if not fused:
        return
    inputs = {str(value.name): value for value in graph.inputs}
    slots = ir.Value(name="row_slots", shape=ir.Shape(["S"]), type=ir.TensorType(ir.DataType.INT64))
    graph.inputs.append(slots)
    for node in fused:
        rows, tables = [_value(node, i) for i in range(3)], _rotary(node)
        if tables is not None:
            rows[:2] = [_value(_rotation(row), 0) for row in rows[:2]]
        whole = {"heads": _integer(node, "num_heads", 0), "kv_heads": _integer(node, "kv_num_heads", 0)}
        window = max(0, _integer(node, "local_window_size", 0))
        given = [*rows, _value(node, 3), _value(node, 4), inputs["position_ids"], slots, *(tables or [None] * 3)]
        rotary = _integer(_rotation(_value(node, 0)), "rotary_embedding_dim", 0) if tables else 0
        numbers = {**whole, "window": window, "rotary": rotary}  # rotary: elements of a head, 0 for all
        attention = _node("Attention", given, numbers, node.name, outputs=3)
        for name in ("scale", "softcap"):
            attention.attributes[name] = ir.AttrFloat32(name, node.attributes[name].as_float())
        _put(graph, attention, before=node)
        for old, new in zip(node.outputs, attention.outputs, strict=True):
            _take_over(old, new)
    graph.remove(fused, safe=True)
    for name in ("seqlens_k", "total_sequence_length"):
        graph.inputs.remove(inputs[name])


def _rotary(attention: ir.Node) -> list[ir.Value] | None:
    """Cosines, sines, and each row's row of them, where queries and keys are rotated alike and for nothing else."""
    rotations = [_producer(attention, i) for i in range(2)]
    for node in rotations:
        if node is None or node.op_type != "RotaryEmbedding" or len(list(node.outputs[0].uses())) != 1:
            return None
    query, key = (_rotation(_value(attention, i)) for i in range(2))
    if any(_value(query, i) is not _value(key, i) for i in range(1, 4)) or _integer(query, "interleaved", 0):
        return None
    return [_value(query, 2), _value(query, 3), _value(query, 1)]


def _rotation(rotated: ir.Value) -> ir.Node:
    node = rotated.producer()
    assert node is not None
    return node


# --- reshapes that lead from rows to rows -----------------------------------------------------------------------

_ROWS_OUT = {"Linear": (0, 1, 2), "RotaryEmbedding": (0,), "GroupQueryAttention": (0,)}
_ROWS_IN = {"Linear": (0,), "RotaryEmbedding": (0,), "GroupQueryAttention": (0, 1, 2)}


def _drop_reshapes(graph: ir.Graph) -> None:
    """Both ends hold rows [B, S, N], so that reshapes between them only go back and forth."""
    for node in list(graph):
        for i in _ROWS_OUT.get(node.op_type, ()):
            if i < len(node.outputs):
                _connect(node.outputs[i], node.outputs[i])


def _connect(origin: ir.Value, value: ir.Value) -> None:
    for use in list(value.uses()):
        if use.node.op_type == "Reshape" and use.idx == 0:
            _connect(origin, use.node.outputs[0])
        elif value is not origin and use.idx in _ROWS_IN.get(use.node.op_type, ()):
            use.node.replace_input_with(use.idx, origin)


# --- small steps ------------------------------------------------------------------------------------------------


def _pack(weights: Sequence[ir.Value], form: Form) -> Packed:
    shapes = tuple((_shape(weight)[0], _shape(weight)[1]) for weight in weights)
    arrays = []
    for array in form.arrays(shapes):
        kind = ir.TensorType(ir.DataType.from_numpy(array.dtype))
        name = "+".join(str(weight.name) for weight in weights) + array.suffix
        arrays.append(ir.Value(name=name, shape=ir.Shape(array.shape), type=kind))
    return Packed(weights=tuple(weights), form=form, arrays=tuple(arrays))


def _three(arrays: Sequence[ir.Value]) -> list[ir.Value | None]:
    return [*arrays, *[None] * (3 - len(arrays))]


def _joined(graph: ir.Graph, biases: list[ir.Value], before: ir.Node) -> ir.Value:
    if len(biases) == 1:
        return biases[0]
    concat = ir.Node("", "Concat", biases, [ir.AttrInt64("axis", 0)], name=f"{before.name}.bias")
    _put(graph, concat, before=before)
    return concat.outputs[0]


def _node(
    kind: str, inputs: Sequence[ir.Value | None], attributes: dict[str, int], name: str | None, outputs: int = 1
) -> ir.Node:
    numbers = [ir.AttrInt64(key, number) for key, number in attributes.items()]
    return ir.Node(DOMAIN, kind, inputs, numbers, num_outputs=outputs, name=name)


def _put(graph: ir.Graph, node: ir.Node, *, before: ir.Node) -> None:
    for i, output in enumerate(node.outputs):
        output.name = f"{node.name}.{node.op_type}.{i}"
    graph.insert_before(before, node)


def _take_over(old: ir.Value, new: ir.Value) -> None:
    new.shape, new.type = old.shape, old.type
    if old.is_graph_output():
        new.name, old.name = old.name, f"{old.name}.replaced"
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def _is_matrix(value: ir.Value) -> bool:
    return value.is_initializer() and len(_shape(value)) == 2


def _shape(value: ir.Value) -> tuple[int, ...]:
    return tuple(d if isinstance(d, int) else -1 for d in value.shape or ())


def _value(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value


def _producer(node: ir.Node, index: int) -> ir.Node | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    return None if value is None else value.producer()


def _only_user(value: ir.Value, kind: str) -> ir.Node | None:
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and uses[0].node.op_type == kind and not value.is_graph_output() else None


def _other(node: ir.Node, value: ir.Value) -> ir.Value:
    """The other input of a node of two."""
    return _value(node, 1) if node.inputs[0] is value else _value(node, 0)


def _integer(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _constant(value: ir.Value) -> float | None:
    """The number in a constant of one element."""
    tensor = value.const_value
    return float(tensor.numpy().reshape(-1)[0]) if tensor is not None and tensor.size == 1 else None
