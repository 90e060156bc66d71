"""The operators of csrc/ops in terms of ONNX's and ONNX Runtime's own, for workers without them (a GPU, no compiler).

The weight files stay the same: transposes bring their tiles back to rows, which ONNX Runtime computes once, at load.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.helper import get_attribute_value, make_node

from hyperlane.model import unfused
from hyperlane.model.fuse import DOMAIN
from hyperlane.model.fuse_half import fuse_half
from hyperlane.quantization.reference import BLOCK, TILE

_MICROSOFT = "com.microsoft"
_QUANTIZED = ("Linear", "Embed")  # what holds weights of few bits


def lower(model: ModelProto, dtype: str, *, fused: bool = True, on_gpu: bool = False) -> None:
    """Replace the operators in place; activations are of `dtype`, "float32" or "float16".

    fused: attention as ONNX Runtime's one operator; else in pieces, which take `position_ids` alone.
    on_gpu: with the operators of csrc/cuda_ops, where weights and activations are in FP16.
    """
    graph, nodes = model.graph, list(model.graph.node)
    on_gpu = on_gpu and not any(node.domain == DOMAIN and node.op_type in _QUANTIZED for node in nodes)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    writer = _Writer(graph, shapes, TensorProto.FLOAT16 if dtype == "float16" else TensorProto.FLOAT)
    writer.fused = fused
    del graph.node[:]
    for node in nodes:
        if node.domain != DOMAIN:
            graph.node.append(node)
        elif node.op_type == "Linear":
            writer.linear(node)
        elif node.op_type == "Embed":
            writer.embed(node)
        elif node.op_type == "Attention":
            writer.attention(node)
        else:
            writer.candidates(node)
    if dtype == "float16":
        fuse_half(graph, operators=on_gpu)
    kept = [opset for opset in model.opset_import if opset.domain not in (DOMAIN, _MICROSOFT)]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    for domain in (_MICROSOFT, DOMAIN) if on_gpu else (_MICROSOFT,):
        model.opset_import.add(domain=domain, version=1)


class _Writer:
    """Appends the nodes of one operator at a time."""

    def __init__(self, graph: GraphProto, shapes: dict[str, tuple[int, ...]], element: int) -> None:
        self._graph, self._shapes, self._element = graph, shapes, element
        self._constants: set[str] = set()
        self.fused = True
        self._scope, self._count = "", 0

    def linear(self, node: NodeProto) -> None:
        rows, codes, scales, minima, norm, bias, residual = _inputs(node, 7)
        self._scope, numbers = node.name, _numbers(node)
        bits, sizes = int(numbers["bits"]), [int(numbers[f"size{i}"]) for i in range(3)]
        tiles, blocks, *_ = self._shapes[codes]
        N, middle = tiles * TILE, 2 ** (bits - 1)
        if norm:
            rows = self._add("SimplifiedLayerNormalization", [rows, norm], epsilon=numbers["epsilon"], axis=-1)
        rank = int(numbers["rank"])
        rows = self._whole_blocks(rows, rank, int(numbers["width"]), blocks)
        packed = self._reshaped(codes, (0, 3, 1, 2, 4), (N, blocks, BLOCK * bits // 8))
        scales_NB = self._halves(scales, tiles, blocks)
        value = self._add(
            "MatMulNBits",
            [rows, packed, scales_NB],
            domain=_MICROSOFT,
            bits=bits,
            block_size=BLOCK,
            K=blocks * BLOCK,
            N=N,
            accuracy_level=4,
        )
        if minima:  # scale * (u - middle) + (minimum + middle * scale), the latter once a block
            shift = self._add("Mul", [scales_NB, self._constant(middle)])
            offset = self._add("Add", [self._halves(minima, tiles, blocks), shift])
            sums = self._block_sums(rows, rank, blocks)
            value = self._add("Add", [value, self._add("MatMul", [sums, self._transposed(offset)])])
        if bias:
            value = self._add("Add", [value, self._padded_bias(bias, sizes)])
        if numbers["gated"]:
            self._gated(node, value, sizes[0], N)
        else:
            self._split(node, value, [size for size in sizes if size], residual)

    def embed(self, node: NodeProto) -> None:
        ids, codes, scales, minima = _inputs(node, 4)
        self._scope, numbers = node.name, _numbers(node)
        bits, width = int(numbers["bits"]), int(numbers["width"])
        tiles, blocks, *_ = self._shapes[codes]
        packed = self._reshaped(codes, (0, 3, 1, 2, 4), (tiles * TILE, blocks, BLOCK * bits // 8))
        found = self._add("Gather", [packed, ids], axis=0)
        if bits == 4:
            low = self._add("BitwiseAnd", [found, self._constant(15, np.uint8)])
            high = self._add("BitShift", [found, self._constant(4, np.uint8)], direction="RIGHT")
            last = self._constant([-1], np.int64)
            pair = [self._add("Unsqueeze", [half, last]) for half in (low, high)]
            found = self._add("Concat", pair, axis=-1)
            found = self._add("Reshape", [found, self._constant([0, 0, blocks, BLOCK], np.int64)])
        values = self._add("Cast", [found], to=self._element)
        if not minima:
            values = self._add("Sub", [values, self._constant(2 ** (bits - 1))])
        parts = [self._gathered(halves, tiles, blocks, ids) for halves in filter(None, (scales, minima))]
        values = self._add("Mul", [values, parts[0]])
        if minima:
            values = self._add("Add", [values, parts[1]])
        rows = self._add("Reshape", [values, self._constant([0, 0, blocks * BLOCK], np.int64)])
        self._cut(rows, width, blocks * BLOCK, node.output[0])

    def attention(self, node: NodeProto) -> None:
        q, k, v, past_key, past_value, _, _, cos, sin, rotary_rows = _inputs(node, 10)
        self._scope, numbers = node.name, _numbers(node)
        heads, kv_heads = int(numbers["heads"]), int(numbers["kv_heads"])
        if cos:
            tables, rotary = [rotary_rows, cos, sin], int(numbers["rotary"])
            q, k = (self._rotated([rows, *tables], n, rotary) for rows, n in ((q, heads), (k, kv_heads)))
        if not self.fused:
            shape = next(value for value in self._graph.input if value.name == past_key).type.tensor_type.shape
            outputs = (node.output[0], node.output[1], node.output[2])
            unfused.attention(
                _Pieces(self), (q, k, v), (past_key, past_value), outputs, numbers, shape.dim[3].dim_value
            )
            return
        inputs = [q, k, v, past_key, past_value, "seqlens_k", "total_sequence_length"]
        attributes = {"num_heads": heads, "kv_num_heads": kv_heads, "scale": numbers["scale"]}
        attributes |= {"softcap": numbers["softcap"], "local_window_size": int(numbers["window"]) or -1}
        fused = make_node(
            "GroupQueryAttention", inputs, list(node.output), name=node.name, domain=_MICROSOFT, **attributes
        )
        self._graph.node.append(fused)

    def candidates(self, node: NodeProto) -> None:
        self._scope = node.name
        logits, (ids, values, logsumexp) = node.input[0], node.output
        count = self._constant([int(_numbers(node)["count"])], np.int64)
        self._graph.node.append(make_node("TopK", [logits, count], [values, ids], name=f"{node.name}/TopK", axis=-1))
        # As its pieces: ReduceLogSumExp goes to a kernel of cuDNN that takes 3 ms for a few rows of 32,000.
        bounds = [self._constant([number], np.int64) for number in (0, 1, -1)]
        largest = self._add("Slice", [values, *bounds])
        powers = self._add("Exp", [self._add("Sub", [logits, largest])])
        last = self._constant([-1], np.int64)
        logs = self._add("Log", [self._add("ReduceSum", [powers, last], keepdims=1)])
        whole = self._add("Add", [largest, logs])
        self._graph.node.append(make_node("Squeeze", [whole, last], [logsumexp], name=f"{node.name}/{logsumexp}"))

    # --- pieces -------------------------------------------------------------------------------------------------

    def _rotated(self, inputs: Sequence[str], heads: int, rotary: int) -> str:
        return self._add("RotaryEmbedding", inputs, domain=_MICROSOFT, num_heads=heads, rotary_embedding_dim=rotary)

    def _gated(self, node: NodeProto, value: str, size: int, N: int) -> None:
        gate, up = self._add_several(2, "Split", [value, self._constant([N // 2, N // 2], np.int64)], axis=-1)
        silu = self._add("Mul", [gate, self._add("Sigmoid", [gate])])
        self._cut(self._add("Mul", [silu, up]), size, N // 2, node.output[0])

    def _split(self, node: NodeProto, value: str, sizes: Sequence[int], residual: str) -> None:
        pieces = list(_pieces(sizes))
        names = [value]
        if len(pieces) > 1:
            lengths = self._constant([length for length, _ in pieces], np.int64)
            names = self._add_several(len(pieces), "Split", [value, lengths], axis=-1)
        kept = [name for name, (_, used) in zip(names, pieces, strict=True) if used]
        for name, output in zip(kept, node.output, strict=True):
            inputs = [name, residual] if residual else [name]
            kind = "Add" if residual else "Identity"
            self._graph.node.append(make_node(kind, inputs, [output], name=f"{self._scope}/{output}"))

    def _whole_blocks(self, rows: str, rank: int, width: int, blocks: int) -> str:
        """Rows with zeros behind them: what MatMulNBits makes of a broken block varies from run to run."""
        missing = blocks * BLOCK - width
        ends = [0] * (2 * rank - 1) + [missing]
        return self._add("Pad", [rows, self._constant(ends, np.int64)]) if missing else rows

    def _block_sums(self, rows: str, rank: int, blocks: int) -> str:
        """[.., K] -> [.., blocks]: the sum of each 32 values."""
        shape = [*[0] * (rank - 1), blocks, BLOCK]
        cut = self._add("Reshape", [rows, self._constant(shape, np.int64)])
        return self._add("ReduceSum", [cut, self._constant([-1], np.int64)], keepdims=0)

    def _padded_bias(self, bias: str, sizes: Sequence[int]) -> str:
        if all(size % TILE == 0 for size in sizes):
            return bias
        lengths = [size for size in sizes if size]
        parts = self._add_several(len(lengths), "Split", [bias, self._constant(lengths, np.int64)], axis=0)
        padded = [
            self._add("Pad", [part, self._constant([0, -size % TILE], np.int64)])
            for part, size in zip(parts, lengths, strict=True)
        ]
        return self._add("Concat", padded, axis=0)

    def _halves(self, tiled: str, tiles: int, blocks: int) -> str:
        """FP16 [tiles, blocks, 16] -> activations' type [N, blocks]."""
        return self._add("Cast", [self._reshaped(tiled, (0, 2, 1), (tiles * TILE, blocks))], to=self._element)

    def _gathered(self, tiled: str, tiles: int, blocks: int, ids: str) -> str:
        """A half of each block of the rows `ids`: [B, S, blocks, 1]."""
        found = self._add("Gather", [self._halves(tiled, tiles, blocks), ids], axis=0)
        return self._add("Unsqueeze", [found, self._constant([-1], np.int64)])

    def _reshaped(self, tiled: str, order: tuple[int, ...], shape: tuple[int, ...]) -> str:
        rows = self._add("Transpose", [tiled], perm=order)
        return self._add("Reshape", [rows, self._constant(shape, np.int64)])

    def _transposed(self, matrix: str) -> str:
        return self._add("Transpose", [matrix], perm=(1, 0))

    def _cut(self, value: str, size: int, held: int, output: str) -> None:
        if size == held:
            self._graph.node.append(make_node("Identity", [value], [output], name=f"{self._scope}/{output}"))
            return
        ends = [self._constant([number], np.int64) for number in (0, size, -1)]
        self._graph.node.append(make_node("Slice", [value, *ends], [output], name=f"{self._scope}/{output}"))

    def _add(self, kind: str, inputs: Sequence[str], *, domain: str = "", **attributes: object) -> str:
        return self._add_several(1, kind, inputs, domain=domain, **attributes)[0]

    def _add_several(
        self, outputs: int, kind: str, inputs: Sequence[str], *, domain: str = "", **attributes: object
    ) -> list[str]:
        self._count += 1
        name = f"{self._scope}/{kind}.{self._count}"
        names = [f"{name}.{i}" for i in range(outputs)]
        self._graph.node.append(make_node(kind, list(inputs), names, name=name, domain=domain, **attributes))
        return names

    def _constant(self, value: object, kind: type[np.generic] | None = None) -> str:
        element = np.float16 if self._element == TensorProto.FLOAT16 else np.float32
        array = np.asarray(value, kind or element)
        name = f"lowered/{array.dtype}/{array.shape}/{array.tobytes().hex()}"
        if name not in self._constants:
            self._constants.add(name)
            self._graph.initializer.append(numpy_helper.from_array(array, name))
        return name


class _Pieces:
    """What `unfused` writes with."""

    def __init__(self, writer: _Writer) -> None:
        self._writer = writer

    def add(self, kind: str, inputs: list[str], **attributes: object) -> str:
        return self._writer._add_several(1, kind, inputs, domain="", **attributes)[0]

    def whole(self, *values: int) -> str:
        return self._writer._constant(list(values), np.int64)

    def number(self, value: float) -> str:
        return self._writer._constant(value)

    def name(self, value: str, output: str) -> None:
        self._writer._graph.node.append(make_node("Identity", [value], [output], name=output))


def _inputs(node: NodeProto, count: int) -> list[str]:
    """Names of the first inputs, "" for those left out."""
    names = [str(name) for name in node.input]
    return names + [""] * (count - len(names))


def _pieces(sizes: Sequence[int]) -> Iterator[tuple[int, bool]]:
    """Lengths along the padded outputs, and whether each is used or padding."""
    for size in sizes:
        yield size, True
        if size % TILE:
            yield -size % TILE, False


def _numbers(node: NodeProto) -> dict[str, float]:
    return {attribute.name: get_attribute_value(attribute) for attribute in node.attribute}
