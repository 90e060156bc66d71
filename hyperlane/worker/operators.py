"""The operators of csrc/ops and csrc/cuda_ops: a library of custom operators for ONNX Runtime, in the native module."""

from hyperlane.transport.codec.device import cuda
from hyperlane.transport.native import extension

OPERATORS_VERSION = 2  # raise it when graphs use the operators in another way
GPU_OPERATORS_VERSION = 1  # likewise, of those for GPUs


def operators_library() -> str | None:
    """Its path; None where the native module could not be built."""
    module = extension()
    return None if module is None else str(module.__file__)


def operators_version(device: str) -> int:
    """What a worker on this device announces: 0 where graphs must do without."""
    kind, _, index = device.partition(":")
    if kind == "cuda":
        return GPU_OPERATORS_VERSION if _runs_on(int(index or 0)) else 0
    return OPERATORS_VERSION if device == "cpu" and operators_library() is not None else 0


def _runs_on(index: int) -> bool:
    """Whether a GPU has what the operators in FP16 are made of."""
    module = cuda()
    if module is None or index >= module.device_count():
        return False
    module.set_device(index)
    return bool(module.has_operators())
