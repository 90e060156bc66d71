"""The codecs' CUDA kernels, for rows that lie on a GPU."""

from typing import Any

from hyperlane.errors import TransportError
from hyperlane.transport.codec.entropy import EntropyCodec
from hyperlane.transport.codec.int4_plain import Int4Plain
from hyperlane.transport.codec.protocol import Codec
from hyperlane.transport.codec.raw import Raw
from hyperlane.transport.codec.tabled import TabledCodec, native_parts
from hyperlane.transport.native import extension


def cuda() -> Any | None:
    """The extension's CUDA part, or None where it was built without or no GPU is there."""
    module = extension()
    if module is None or not module.built_with_cuda or not module.cuda.device_count():
        return None
    return module.cuda


def device_codec(codec: Codec, width: int, max_rows: int, *, few_rows: int | None = None, item_bytes: int = 2) -> Any:
    """The kernels of a codec (`_native.cuda.Codec`) on the current device; TransportError where it has none.

    item_bytes: of the values that raw rows have on both sides.
    few_rows: up to so many go the way of the least time of one; None: twice the multiprocessors.
    """
    module = cuda()
    if module is None:
        raise TransportError("no GPU, or the extension was built without CUDA")
    if isinstance(codec, Raw):
        return module.raw(width * item_bytes)
    if isinstance(codec, Int4Plain):
        return module.int4_plain(width)
    if isinstance(codec, TabledCodec):
        make = module.entropy if isinstance(codec.reference, EntropyCodec) else module.rotated
        return make(**native_parts(codec.reference), max_rows=max_rows, few_rows=few_rows)
    raise TransportError(f"codec {codec.name} has no kernels for a GPU")
