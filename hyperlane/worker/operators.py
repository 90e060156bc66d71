"""The operators of csrc/ops: a library of custom operators for ONNX Runtime, in the native module."""

from hyperlane.transport.native import extension

OPERATORS_VERSION = 2  # raise it when graphs use the operators in another way


def operators_library() -> str | None:
    """Its path; None where the native module could not be built."""
    module = extension()
    return None if module is None else str(module.__file__)


def operators_version(device: str) -> int:
    """What a worker on this device announces: 0 where graphs must do without."""
    return OPERATORS_VERSION if device == "cpu" and operators_library() is not None else 0
