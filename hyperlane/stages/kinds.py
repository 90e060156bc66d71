"""Which graphs a worker's shard is made of: planning, measuring and deploying must agree on them."""

from collections.abc import Sequence
from typing import NamedTuple

from hyperlane.artifacts import WorkerInfo
from hyperlane.worker.operators import OPERATORS_VERSION

FP16 = "float16"
"""What GPU workers compute in: onnxruntime's fused attention for CUDA takes nothing wider."""


class GraphKind(NamedTuple):
    dtype: str
    operators: bool  # our own, not the standard's


def graph_kind(worker: WorkerInfo, dtype: str) -> GraphKind:
    """`dtype` is what the model's configuration says."""
    return GraphKind(FP16 if is_gpu(worker) else dtype, has_operators(worker))


def is_gpu(worker: WorkerInfo) -> bool:
    return worker.device.startswith("cuda")


def has_operators(worker: WorkerInfo) -> bool:
    """Whether the worker has our own operators, as this version uses them."""
    return worker.operators == OPERATORS_VERSION


def have_operators(workers: Sequence[WorkerInfo]) -> bool:
    """Whether all of them do."""
    return all(has_operators(worker) for worker in workers)
