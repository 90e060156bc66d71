"""The weights that our operators read, in one piece of memory of large pages.

Every step reads all of them once. From a mapped file that goes page by page of 4 KiB, and the processor's own reading
ahead ends with each; NumPy asks for pages of 2 MiB where it reserves as much as this.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.worker.memory import weights_out_of_memory

ALIGNMENT = 64
OPERATORS_DOMAIN = "hyperlane"
_TYPES: dict[int, type[np.generic]] = {1: np.float32, 2: np.uint8, 10: np.float16}  # by their numbers in ONNX
_EXTERNAL = 1  # a tensor's data_location: in a file


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A weight in a file beside the graph."""

    name: str
    type: type[np.generic]
    shape: tuple[int, ...]
    file: str
    offset: int
    bytes: int


def load_weights(graph_path: Path, free_bytes: int | None = None) -> dict[str, NDArray[Any]]:
    """What the nodes of our operators take from files beside the graph, by name.

    ValueError for a file too short. OutOfMemoryError where they take more than `free_bytes`: the kernel promises more
    memory than it has.
    """
    tensors = operators_tensors(graph_path.read_bytes())
    starts = np.cumsum([0, *(-(-tensor.bytes // ALIGNMENT) * ALIGNMENT for tensor in tensors)])
    if free_bytes is not None and starts[-1] > free_bytes:
        raise weights_out_of_memory(int(starts[-1]), free_bytes)
    memory = np.empty(int(starts[-1]) + ALIGNMENT, np.uint8)
    memory = memory[-memory.ctypes.data % ALIGNMENT :]
    found: dict[str, NDArray[Any]] = {}
    for tensor, start in zip(tensors, starts.tolist(), strict=False):
        piece = memory[start : start + tensor.bytes]
        with (graph_path.parent / tensor.file).open("rb") as file:
            file.seek(tensor.offset)
            if file.readinto(piece.data) != tensor.bytes:
                raise ValueError(f"{tensor.file} ends within {tensor.name}")
        found[tensor.name] = piece.view(tensor.type).reshape(tensor.shape)
    return found


def operators_tensors(model: bytes) -> Sequence[Tensor]:
    """Of a serialized ONNX model, in its order. A worker has no onnx: of its messages this reads what it needs."""
    graphs = [value for field, value in _fields(memoryview(model)) if field == 7]
    parts = [part for graph in graphs for part in _fields(graph)]
    wanted = {name for field, node in parts if field == 1 for name in _operator_inputs(node)}
    found = [_tensor(tensor) for field, tensor in parts if field == 5]
    return [tensor for tensor in found if tensor is not None and tensor.name in wanted]


def _operator_inputs(node: Any) -> list[str]:
    """NodeProto: input = 1, domain = 7."""
    fields = list(_fields(node))
    if (7, OPERATORS_DOMAIN.encode()) not in fields:
        return []
    return [bytes(value).decode() for field, value in fields if field == 1]


def _tensor(message: Any) -> Tensor | None:
    """TensorProto: dims = 1, data_type = 2, name = 8, external_data = 13, data_location = 14. None: not for us."""
    dims: list[int] = []
    numbers, name = {2: 0, 14: 0}, ""
    entries: dict[str, str] = {}
    for field, value in _fields(message):
        if field == 1:
            dims += [value] if isinstance(value, int) else _varints(value)
        elif field in numbers:
            numbers[field] = value
        elif field == 8:
            name = bytes(value).decode()
        elif field == 13:  # a key, 1, and a value, 2
            entry = {number: bytes(text).decode() for number, text in _fields(value)}
            entries[entry.get(1, "")] = entry.get(2, "")
    file, kind = entries.get("location", ""), _TYPES.get(numbers[2])
    if numbers[14] != _EXTERNAL or kind is None or Path(file).name != file:
        return None
    size = int(np.prod(dims, dtype=np.int64)) * np.dtype(kind).itemsize
    if int(entries.get("length", size)) != size:
        return None
    offset = int(entries.get("offset", "0"))
    return Tensor(name=name, type=kind, shape=tuple(dims), file=file, offset=offset, bytes=size)


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Number and value of each field, as protobuf writes them: a whole number, or a view of bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind not in (1, 2, 5):
            raise ValueError(f"the graph has a field of wire type {kind}")
        size = 8 if kind == 1 else 4
        if kind == 2:
            size, at = _varint(message, at)
        if at + size > len(message):
            raise ValueError("the graph ends within a field")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number at `at`, and where the next field starts."""
    value = shift = 0
    while True:
        if at >= len(message):
            raise ValueError("the graph ends within a number")
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def _varints(message: memoryview) -> list[int]:
    found, at = [], 0
    while at < len(message):
        value, at = _varint(message, at)
        found.append(value)
    return found
