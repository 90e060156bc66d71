"""The codecs h4, int4 and h8 as links use them: bound to tables, native where the extension is there."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.errors import ConfigError
from hyperlane.transport.codec import h4, h8, sb4
from hyperlane.transport.codec.codebooks import NF4, TRELLIS
from hyperlane.transport.codec.protocol import Buffer
from hyperlane.transport.codec.rotated import Quantizer, RotatedCodec, outlier_limit
from hyperlane.transport.codec.tables import Tables
from hyperlane.transport.native import extension

_QUANTIZERS: dict[str, Quantizer] = {"h4": h4, "int4": sb4, "h8": h8}
# The extension's number for each codec id, its levels by bits, and the factors of its scale search.
_NATIVE: dict[int, tuple[int, Sequence[NDArray[np.float32]], Sequence[float]]] = {
    h4.ID: (0, (*TRELLIS[:1] * 4, NF4.levels), h4.TRIALS),
    sb4.ID: (1, TRELLIS, ()),
    h8.ID: (2, (), ()),
}
TABLED_NAMES = tuple(_QUANTIZERS)
TABLED_IDS = tuple(quantizer.ID for quantizer in _QUANTIZERS.values())


class TabledCodec:
    """A Codec; both ends of a link make it from the same tables. `isa` is for tests, "" this CPU's best."""

    def __init__(self, name: str, tables: Tables, *, native: bool = True, isa: str = "") -> None:
        if name not in _QUANTIZERS:
            raise ConfigError(f"codec {name!r} takes no tables; take one of {', '.join(TABLED_NAMES)}")
        quantizer = _QUANTIZERS[name]
        self.name = name
        self.id = quantizer.ID
        self.tables = tables
        self._reference = RotatedCodec(quantizer, tables)
        self._native = _native_codec(self._reference, isa) if native else None

    def max_bytes(self, rows: int, width: int) -> int:
        """What `rows` rows take that are all sent as FP32."""
        return 8 + -(-rows // 4) + rows * 4 * (width + 2)

    def encode(self, hidden_RD: NDArray[Any], positions_R: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """The payload; TransportError where the rows are of another width than the tables."""
        if self._native is None or hidden_RD.shape[1] != self.tables.width:
            return self._reference.encode(hidden_RD, positions_R)
        payload = np.empty(self.max_bytes(*hidden_RD.shape), np.uint8)
        size: int = self._native.encode(np.ascontiguousarray(hidden_RD), positions_R, payload)
        return payload[:size]

    def decode(self, payload: Buffer, positions_R: NDArray[np.uint32], out_RD: NDArray[Any]) -> None:
        """Write the rows; TransportError where the payload is malformed or was made with other tables."""
        fits = out_RD.flags.c_contiguous and out_RD.shape[1] == self.tables.width
        if self._native is None or not fits or self._native.decode(payload, out_RD):
            self._reference.decode(payload, out_RD)  # which says what is wrong, with the values


def native_parts(codec: "TabledCodec") -> dict[str, Any]:
    """What the extension makes its codecs of: arguments of RotatedCodec, and of cuda.rotated."""
    return _parts(codec._reference)


def _native_codec(reference: RotatedCodec, isa: str) -> Any:
    module = extension()
    if module is None or not hasattr(module, "RotatedCodec"):
        return None
    return module.RotatedCodec(**_parts(reference), isa=isa)


def _parts(reference: RotatedCodec) -> dict[str, Any]:
    quantizer, tables, rotation = reference.quantizer, reference.tables, reference.rotation
    kind, books, trials = _NATIVE[quantizer.ID]
    return {
        "quantizer": kind,
        "id": tables.id,
        "limit": float(outlier_limit(tables)),
        "mean": rotation.mean,
        "forward": rotation.forward,
        "backward": rotation.backward,
        "order": rotation.order.astype(np.uint32) if quantizer.SORTED else np.empty(0, np.uint32),
        "blocks": [(start, stop - start, bits) for start, stop, bits in reference.blocks],
        "books": [levels.tolist() for levels in books],
        "trials": list(trials),
    }
