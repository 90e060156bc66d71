"""Fewer kernels for GPUs: an RMS norm with the sum before it is one, and rotary embedding is a part of attention.

For graphs in FP16, lowered to ONNX Runtime's own operators. On a GPU a decode step of a large model is some 400 small
kernels beside the products, whose launches and memory round trips cost as much as a tenth of the weights' reading.
"""

from collections.abc import Iterable, Iterator

from onnx import GraphProto, NodeProto, TensorProto, numpy_helper
from onnx.helper import get_attribute_value, make_attribute, make_node

from hyperlane.model.fuse_device import fuse_device
from hyperlane.model.graph_index import Index

_MICROSOFT = "com.microsoft"
_TABLE = "rotary"  # prefix of what computes the rotary tables of all positions


def fuse_half(graph: GraphProto, *, operators: bool = False) -> None:
    """Rewrite in place; what is not recognized stays as it is. operators: with our own for GPUs."""
    _norms(graph)
    _rotary(graph)
    _packed(graph)
    if operators:
        fuse_device(graph)
    _sums_before_norms(graph)
    _drop_unused(graph)


# --- norms ------------------------------------------------------------------------------------------------------


def _norms(graph: GraphProto) -> None:
    """weight * FP16(x / sqrt(mean(x^2) + epsilon)), in FP32 within, becomes SimplifiedLayerNormalization."""
    index, nodes = Index(graph), list(graph.node)
    del graph.node[:]
    for node in nodes:
        found = _norm(index, node) if node.op_type == "Mul" else None
        if found is None:
            graph.node.append(node)
            continue
        rows, weight, epsilon = found
        name = f"{node.name}/norm"
        fused = make_node("SimplifiedLayerNormalization", [rows, weight], list(node.output), name=name)
        fused.attribute.extend([make_attribute("axis", -1), make_attribute("epsilon", epsilon)])
        fused.attribute.append(make_attribute("stash_type", int(TensorProto.FLOAT)))
        graph.node.append(fused)


def _norm(index: Index, node: NodeProto) -> tuple[str, str, float] | None:
    """Rows, weight and epsilon of a norm that ends in a product."""
    for weight, normed in (tuple(node.input), tuple(node.input)[::-1]):
        cast = index.made_by(normed, "Cast")
        quotient = index.made_by(cast.input[0], "Div") if cast is not None else None
        root = index.made_by(quotient.input[1], "Sqrt") if quotient is not None else None
        shifted = index.made_by(root.input[0], "Add") if root is not None else None
        mean = index.made_by(shifted.input[0], "ReduceMean") if shifted is not None else None
        square = index.made_by(mean.input[0], "Pow") if mean is not None else None
        if weight not in index.constants or quotient is None or shifted is None or square is None:
            continue
        widened = index.made_by(quotient.input[0], "Cast")
        if widened is None or square.input[0] != quotient.input[0] or shifted.input[1] not in index.constants:
            continue
        epsilon = float(numpy_helper.to_array(index.constants[shifted.input[1]]).reshape(-1)[0])
        return widened.input[0], weight, epsilon
    return None


def _sums_before_norms(graph: GraphProto) -> None:
    """a + b and its norm become SkipSimplifiedLayerNormalization, which gives both."""
    index, nodes = Index(graph), list(graph.node)
    norms: dict[str, NodeProto] = {}
    for node in nodes:
        if node.op_type == "SimplifiedLayerNormalization":
            total = index.made_by(node.input[0], "Add")
            if total is not None and not any(name in index.constants for name in total.input):
                norms.setdefault(total.output[0], node)
    gone = {node.output[0] for node in norms.values()}
    del graph.node[:]
    for node in nodes:
        norm = norms.get(node.output[0]) if node.op_type == "Add" else None
        if norm is not None:
            outputs = [norm.output[0], "", "", node.output[0]]
            inputs = [*node.input, norm.input[1]]
            epsilon = next(get_attribute_value(a) for a in norm.attribute if a.name == "epsilon")
            name = f"{norm.name}/skip"
            kind = "SkipSimplifiedLayerNormalization"
            graph.node.append(make_node(kind, inputs, outputs, name=name, domain=_MICROSOFT, epsilon=epsilon))
        elif node.output[0] not in gone:
            graph.node.append(node)


# --- rotary embedding -------------------------------------------------------------------------------------------


def _rotary(graph: GraphProto) -> None:
    """GroupQueryAttention turns queries and keys itself, with tables of all positions that the cache has room for."""
    index, tables = Index(graph), dict[str, str]()
    nodes = list(graph.node)
    for node in nodes:
        if node.op_type != "GroupQueryAttention":
            continue
        turned = [index.made_by(index.behind(name, "Reshape"), "RotaryEmbedding") for name in node.input[:2]]
        query, key = turned
        if query is None or key is None or query.input[2:] != key.input[2:] or _is_partial(query):
            continue
        names = [_table(index, tables, name) for name in query.input[2:4]]
        if not all(names):
            continue
        node.input[0], node.input[1] = (index.behind(turn.input[0], "Reshape") for turn in (query, key))
        node.input[2] = index.behind(node.input[2], "Reshape")
        node.input.extend([str(name) for name in names])
        node.attribute.append(make_attribute("do_rotary", 1))
    if tables:
        made = list(_copies(index, nodes, tables, _cache_of(graph)))
        del graph.node[:]
        graph.node.extend([*made, *nodes])


def _is_partial(rotary: NodeProto) -> bool:
    """Whether only a part of each head is turned, or pairs of neighbours are."""
    numbers = {attribute.name: get_attribute_value(attribute) for attribute in rotary.attribute}
    return bool(numbers.get("rotary_embedding_dim") or numbers.get("interleaved"))


def _table(index: Index, tables: dict[str, str], name: str) -> str | None:
    """The name of a table for all positions; None where it depends on more than the positions."""
    for value in _needs(index, name):
        if value not in index.makers and value not in index.constants and value != "position_ids":
            return None
    tables[name] = f"{_TABLE}/{name}"
    return tables[name]


def _needs(index: Index, name: str) -> Iterator[str]:
    """A value and all that it is computed from."""
    yield name
    node = index.makers.get(name)
    for value in () if node is None else node.input:
        if value:
            yield from _needs(index, value)


def _cache_of(graph: GraphProto) -> str:
    return next(str(value.name) for value in graph.input if value.name.startswith("past_key"))


def _copies(index: Index, nodes: Iterable[NodeProto], tables: dict[str, str], cache: str) -> Iterator[NodeProto]:
    """What computes the tables, for the positions 0 to the cache's length."""
    all_positions = f"{_TABLE}/positions"
    length, zero, one = (f"{_TABLE}/{name}" for name in ("length", "zero", "one"))
    axis = f"{_TABLE}/axis"
    yield make_node("Constant", [], [zero], name=zero, value_int=0)
    yield make_node("Constant", [], [one], name=one, value_int=1)
    yield make_node("Constant", [], [axis], name=axis, value_ints=[0])
    yield make_node("Shape", [cache], [f"{length}/1"], name=f"{length}/1", start=2, end=3)
    yield make_node("Squeeze", [f"{length}/1"], [length], name=length)
    yield make_node("Range", [zero, length, one], [f"{all_positions}/1"], name=f"{all_positions}/1")
    yield make_node("Unsqueeze", [f"{all_positions}/1", axis], [all_positions], name=all_positions)
    needed = {value for name in tables for value in _needs(index, name)}
    for node in nodes:
        if any(name in needed for name in node.output):
            copy = NodeProto()
            copy.CopyFrom(node)
            copy.name = f"{_TABLE}/{node.name}"
            copy.input[:] = [_copied(index, name, all_positions) for name in node.input]
            copy.output[:] = [f"{_TABLE}/{name}" for name in node.output]
            yield copy


def _copied(index: Index, name: str, all_positions: str) -> str:
    if name == "position_ids":
        return all_positions
    return f"{_TABLE}/{name}" if name in index.makers else name


# --- queries, keys and values as one ----------------------------------------------------------------------------


def _packed(graph: GraphProto) -> None:
    """Attention that turns its rows takes all three from one product."""
    index, nodes = Index(graph), list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.op_type == "GroupQueryAttention" and any(attribute.name == "do_rotary" for attribute in node.attribute):
            packed = _split_before(index, node) or _product_of_three(graph, index, node)
            if packed:
                node.input[:3] = [packed, "", ""]
        graph.node.append(node)


def _split_before(index: Index, node: NodeProto) -> str:
    """What a Split cuts into just these three; "" where there is none."""
    parts = [index.behind(name, "Identity") for name in node.input[:3]]
    split = index.made_by(parts[0], "Split")
    return str(split.input[0]) if split is not None and list(split.output) == parts else ""


def _product_of_three(graph: GraphProto, index: Index, node: NodeProto) -> str:
    """One product in place of three of the same rows, their weights side by side (put together at load)."""
    products = [index.made_by(name, "MatMul") for name in node.input[:3]]
    found = [product for product in products if product is not None]
    if len(found) < 3 or any(product.input[0] != found[0].input[0] for product in found):
        return ""
    weights = [product.input[1] for product in found]
    if not all(name in index.constants for name in weights):
        return ""
    whole, output = f"{node.name}/weights", f"{node.name}/packed"
    graph.node.append(make_node("Concat", weights, [whole], name=whole, axis=1))
    graph.node.append(make_node("MatMul", [found[0].input[0], whole], [output], name=output))
    return output


# --- what is left -----------------------------------------------------------------------------------------------


def _drop_unused(graph: GraphProto) -> None:
    """Take out nodes whose results nobody uses any more."""
    used = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if any(name in used for name in node.output):
            used.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    names = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(names)
