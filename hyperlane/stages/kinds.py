"""Which graphs a worker's shard is made of: planning, measuring and deploying must agree on them."""

from collections.abc import Sequence
from typing import NamedTuple

from hyperlane.artifacts import WorkerInfo
from hyperlane.quantization import Quantization
from hyperlane.quantization.none import NoQuantization
from hyperlane.worker.operators import GPU_OPERATORS_VERSION, OPERATORS_VERSION

FP16 = "float16"
"""What GPU workers compute in, but with quantization=none: ONNX Runtime's fused attention takes nothing wider there."""


class GraphKind(NamedTuple):
    dtype: str
    operators: bool  # our own, not the standard's
    fused: bool = True  # attention, as one operator
    on_gpu: bool = False  # with our own operators for GPUs


def graph_kind(worker: WorkerInfo, dtype: str, quantization: Quantization) -> GraphKind:
    """`dtype` is what the model's configuration says."""
    stays = not is_gpu(worker) or isinstance(quantization, NoQuantization)
    return kind_of(worker, dtype if stays else FP16)


def kind_of(worker: WorkerInfo, dtype: str) -> GraphKind:
    """Of a worker whose shard is of `dtype`."""
    on_gpu = is_gpu(worker) and worker.operators == GPU_OPERATORS_VERSION and dtype == FP16
    return GraphKind(dtype, has_operators(worker), dtype == FP16 or not is_gpu(worker), on_gpu)


def is_gpu(worker: WorkerInfo) -> bool:
    return worker.device.startswith("cuda")


def has_operators(worker: WorkerInfo) -> bool:
    """Whether the worker has our own operators for CPUs, as this version uses them."""
    return not is_gpu(worker) and worker.operators == OPERATORS_VERSION


def have_operators(workers: Sequence[WorkerInfo]) -> bool:
    """Whether all of them do."""
    return all(has_operators(worker) for worker in workers)
