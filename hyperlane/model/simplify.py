"""Rewrites of a traced graph that ONNX Runtime needs to run it fast; none of them changes what is computed."""

import onnx_ir as ir


def simplify(graph: ir.Graph) -> None:
    """Apply all of them, in place."""
    _take_sizes_from_positions(graph)
    _divide_by_square_roots(graph)


def _take_sizes_from_positions(graph: ir.Graph) -> None:
    """B and S are the same in hidden_in [B, S, D] and position_ids [B, S]; from these all layers can share them."""
    inputs = {value.name: value for value in graph.inputs}
    if "hidden_in" not in inputs or "position_ids" not in inputs:
        return
    for use in inputs["hidden_in"].uses():
        node = use.node
        end = node.attributes["end"].as_int() if "end" in node.attributes else 3
        if node.op_type == "Shape" and end <= 2:
            node.replace_input_with(use.idx, inputs["position_ids"])


def _divide_by_square_roots(graph: ir.Graph) -> None:
    """x * (1 / sqrt(v)) becomes x / sqrt(v), which ONNX Runtime recognizes as a part of an RMS norm."""
    for node in list(graph):
        if node.op_type == "Reciprocal" and node.inputs[0] is not None:
            root, inverse = node.inputs[0], node.outputs[0]
            products = [use.node for use in inverse.uses()]
            if all(product.op_type == "Mul" for product in products):
                for product in products:
                    _replace_product(graph, product, inverse, root)
                graph.remove(node, safe=True)


def _replace_product(graph: ir.Graph, product: ir.Node, inverse: ir.Value, root: ir.Value) -> None:
    other = product.inputs[1] if product.inputs[0] is inverse else product.inputs[0]
    quotient = ir.Node("", "Div", [other, root], name=product.name)
    old, new = product.outputs[0], quotient.outputs[0]
    new.name, new.shape, new.type = old.name, old.shape, old.type
    graph.insert_before(product, quotient)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(product, safe=True)
