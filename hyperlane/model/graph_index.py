"""Who makes and who takes each value of a graph."""

from collections import defaultdict

from onnx import GraphProto, NodeProto, TensorProto
from onnx.helper import get_attribute_value


class Index:
    """Of a graph as it was when this was made."""

    def __init__(self, graph: GraphProto) -> None:
        self.makers = {name: node for node in graph.node for name in node.output if name}
        self.takers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.takers[name].append(node)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}

    def made_by(self, name: str, kind: str) -> NodeProto | None:
        """The node that makes a value, if it is of that kind."""
        node = self.makers.get(name)
        return node if node is not None and node.op_type == kind else None

    def behind(self, name: str, kind: str) -> str:
        """The value before all nodes of a kind, such as Reshape, that lead to `name`."""
        node = self.made_by(name, kind)
        while node is not None:
            name = node.input[0]
            node = self.made_by(name, kind)
        return name

    def is_constant(self, name: str) -> bool:
        """Whether nothing that comes into the graph has a part in a value."""
        if name in self.constants:
            return True
        node = self.makers.get(name)
        return node is not None and all(self.is_constant(part) for part in node.input if part)

    def matrix(self, name: str) -> tuple[int, int] | None:
        """Rows and columns of a constant FP16 matrix, or of several that a Concat puts side by side."""
        tensor = self.constants.get(name)
        if tensor is not None:
            half = len(tensor.dims) == 2 and int(tensor.data_type) == int(TensorProto.FLOAT16)
            return (int(tensor.dims[0]), int(tensor.dims[1])) if half else None
        node = self.made_by(name, "Concat")
        if node is None or get_attribute_value(node.attribute[0]) not in (1, -1):
            return None
        sizes = [self.matrix(part) for part in node.input]
        found = [size for size in sizes if size is not None]
        if len(found) < len(sizes) or len({rows for rows, _ in found}) != 1:
            return None
        return found[0][0], sum(columns for _, columns in found)
