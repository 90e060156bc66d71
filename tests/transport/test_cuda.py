"""The CUDA part of the extension on any machine: it imports, and says what is missing."""

import pytest

from hyperlane.transport.native import extension

native = extension()


@pytest.mark.skipif(native is None or not native.built_with_cuda, reason="built without CUDA (no nvcc)")
def test_without_a_gpu_the_extension_imports_and_says_so() -> None:
    assert native is not None
    if native.cuda.device_count() == 0:
        with pytest.raises(RuntimeError, match="CUDA: "):
            native.cuda.PinnedBuffer(4096)
    else:
        assert memoryview(native.cuda.PinnedBuffer(4096)).nbytes == 4096
