"""The CUDA part of the extension on any machine: it imports, and says what is missing."""

import pytest

from hyperlane.errors import TransportError
from hyperlane.transport.codec import make_codec
from hyperlane.transport.codec.device import cuda, device_codec
from hyperlane.transport.native import extension
from tests.bench.kernels.check import check

native = extension()


@pytest.mark.skipif(native is None or not native.built_with_cuda, reason="built without CUDA (no nvcc)")
def test_without_a_gpu_the_extension_imports_and_says_so() -> None:
    assert native is not None
    if native.cuda.device_count() == 0:
        with pytest.raises(RuntimeError, match="CUDA: "):
            native.cuda.PinnedBuffer(4096)
    else:
        assert memoryview(native.cuda.PinnedBuffer(4096)).nbytes == 4096


@pytest.mark.skipif(cuda() is not None, reason="a GPU is there")
def test_without_a_gpu_a_codec_has_no_kernels() -> None:
    with pytest.raises(TransportError, match="no GPU"):
        device_codec(make_codec("int4_plain"), 4096, 8)


@pytest.mark.skipif(cuda() is None, reason="no GPU")
@pytest.mark.parametrize("name", ["int4_plain", "h8", "h4", "int4"])
def test_kernels_give_the_bytes_and_values_of_the_reference(name: str) -> None:
    assert [row for row in check(name, seed=5) if row.value] == []


@pytest.mark.skipif(cuda() is None, reason="no GPU")
def test_a_codec_without_kernels_says_so() -> None:
    with pytest.raises(TransportError, match="codec int8 has no kernels"):
        device_codec(make_codec("int8"), 4096, 8)
