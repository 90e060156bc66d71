"""Our own operators for GPUs (csrc/cuda_ops) in FP16 graphs: a layer of a model becomes five nodes.

HalfLinear is a product with what stands around it: the RMS norm before, the gate or the residual behind. HalfAttention
turns queries and keys, appends to the cache, and attends. What is not recognized stays ONNX Runtime's.
"""

from onnx import GraphProto, NodeProto
from onnx.helper import get_attribute_value, make_node

from hyperlane.model.fuse import DOMAIN
from hyperlane.model.graph_index import Index

TILE = 64  # rows and columns of a weight that are taken at once
HEADS = (64, 128)
_LENGTHS = ("seqlens_k", "total_sequence_length")


def fuse_device(graph: GraphProto) -> None:
    """Rewrite in place. Norms are nodes of their own, and attention takes packed rows, where it is to be recognized."""
    _attention(graph)
    _gates(graph)
    _products(graph)


# --- attention ---------------------------------------------------------------------------------------------------


def _attention(graph: GraphProto) -> None:
    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in graph.input}
    nodes, left = list(graph.node), False
    del graph.node[:]
    for node in nodes:
        if node.op_type == "GroupQueryAttention":
            made = _half_attention(node, shapes)
            left = left or made is None
            node = made or node
        graph.node.append(node)
    if not left:
        kept = [value for value in graph.input if value.name not in _LENGTHS]
        del graph.input[:]
        graph.input.extend(kept)


def _half_attention(node: NodeProto, shapes: dict[str, list[int]]) -> NodeProto | None:
    numbers = {attribute.name: get_attribute_value(attribute) for attribute in node.attribute}
    packed, key, _, past_key, past_value, *_ = node.input
    plain = numbers.get("softcap", 0.0) == 0 and numbers.get("local_window_size", -1) < 0
    if not numbers.get("do_rotary") or key or not plain or shapes[past_key][3] not in HEADS:
        return None
    inputs = [packed, past_key, past_value, "position_ids", *node.input[7:9]]
    told = {"heads": numbers["num_heads"], "scale": numbers["scale"]}
    return make_node("HalfAttention", inputs, list(node.output), name=node.name, domain=DOMAIN, **told)


# --- products ----------------------------------------------------------------------------------------------------


def _gates(graph: GraphProto) -> None:
    """silu(x A) * (x B) is one node."""
    index, nodes = Index(graph), list(graph.node)
    del graph.node[:]
    for node in nodes:
        found = _gate(index, node) if node.op_type == "Mul" else None
        if found is None:
            graph.node.append(node)
            continue
        rows, gate, up = found
        graph.node.append(_half_linear(index, node.name, rows, (gate, up), "", node.output[0]))


def _gate(index: Index, node: NodeProto) -> tuple[str, str, str] | None:
    """Rows, and the weights of the gate and of what it gates."""
    for silu_name, up_name in (tuple(node.input), tuple(node.input)[::-1]):
        silu, up = index.made_by(silu_name, "Mul"), index.made_by(up_name, "MatMul")
        if silu is None or up is None:
            continue
        for gate_name, share_name in (tuple(silu.input), tuple(silu.input)[::-1]):
            gate, share = index.made_by(gate_name, "MatMul"), index.made_by(share_name, "Sigmoid")
            if gate is None or share is None or share.input[0] != gate_name or gate.input[0] != up.input[0]:
                continue
            sizes = [index.matrix(product.input[1]) for product in (gate, up)]
            if sizes[0] == sizes[1] and _fits(sizes[0]):
                return gate.input[0], gate.input[1], up.input[1]
    return None


def _products(graph: GraphProto) -> None:
    """Products by constants, with a sum behind them where the other summand is rows too."""
    index, nodes = Index(graph), list(graph.node)
    sums = _sums(index, nodes)
    gone = {product.output[0] for product, _ in sums.values()}
    del graph.node[:]
    for node in nodes:
        product, residual = sums.get(node.output[0], (node, ""))
        if product is node and (node.output[0] in gone or not _is_product(index, node)):
            if node.output[0] not in gone:
                graph.node.append(node)
            continue
        weights = (product.input[1], "")
        graph.node.append(_half_linear(index, product.name, product.input[0], weights, residual, node.output[0]))


def _sums(index: Index, nodes: list[NodeProto]) -> dict[str, tuple[NodeProto, str]]:
    """For the results of sums with one product: the product, and the other summand."""
    found = {}
    for node in nodes:
        for name, other in (tuple(node.input), tuple(node.input)[::-1]) if node.op_type == "Add" else ():
            product = index.made_by(name, "MatMul")
            alone = product is not None and len(index.takers[name]) == 1 and not index.is_constant(other)
            if product is not None and alone and _is_product(index, product) and node.output[0] not in found:
                found[node.output[0]] = (product, other)
    return found


def _is_product(index: Index, node: NodeProto) -> bool:
    return node.op_type == "MatMul" and _fits(index.matrix(node.input[1]))


def _fits(size: tuple[int, int] | None) -> bool:
    return size is not None and size[0] % TILE == 0 and size[1] % TILE == 0


def _half_linear(index: Index, name: str, rows: str, weights: tuple[str, str], residual: str, output: str) -> NodeProto:
    """The second weight, if any, is that of what the first one gates."""
    norm = index.made_by(rows, "SimplifiedLayerNormalization")
    inputs, epsilon = [rows, *weights, "", residual], 0.0
    if norm is not None and norm.input[1] in index.constants:
        numbers = {attribute.name: get_attribute_value(attribute) for attribute in norm.attribute}
        inputs[0], inputs[3], epsilon = norm.input[0], norm.input[1], numbers["epsilon"]
    else:
        attended = index.behind(rows, "Reshape")
        if index.made_by(attended, "HalfAttention") is not None:
            inputs[0] = attended
    outputs = [output, f"{output}/scratch"]
    return make_node("HalfLinear", inputs, outputs, name=name, domain=DOMAIN, epsilon=epsilon)
