"""The codecs h4, int4 and h8 as links use them: bound to tables, native where the extension is there."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.errors import ConfigError
from hyperlane.transport.codec import entropy, h4, h8
from hyperlane.transport.codec.entropy import EntropyCodec
from hyperlane.transport.codec.protocol import Buffer
from hyperlane.transport.codec.rotated import RotatedCodec
from hyperlane.transport.codec.tables import Tables
from hyperlane.transport.native import extension

TABLED_NAMES = ("h4", "int4", "h8")
TABLED_IDS = (h4.ID, entropy.ID, h8.ID)
Reference = RotatedCodec | EntropyCodec


class TabledCodec:
    """A Codec; both ends of a link make it from the same tables. `isa` is for tests, "" this CPU's best."""

    def __init__(self, name: str, tables: Tables, *, native: bool = True, isa: str = "") -> None:
        if name not in TABLED_NAMES:
            raise ConfigError(f"codec {name!r} takes no tables; take one of {', '.join(TABLED_NAMES)}")
        self.name = name
        self.id = TABLED_IDS[TABLED_NAMES.index(name)]
        self.tables = tables
        self.reference = _reference(name, tables)
        self._native = _native_codec(self.reference, isa) if native else None

    def max_bytes(self, rows: int, width: int) -> int:
        """The most that `rows` rows take."""
        return self.reference.max_bytes(rows)

    def encode(self, hidden_RD: NDArray[Any], positions_R: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """The payload; TransportError where the rows are of another width than the tables."""
        if self._native is None or hidden_RD.shape[1] != self.tables.width:
            return self.reference.encode(hidden_RD, positions_R)
        payload = np.empty(self.max_bytes(*hidden_RD.shape), np.uint8)
        size: int = self._native.encode(np.ascontiguousarray(hidden_RD), positions_R, payload)
        return payload[:size]

    def decode(self, payload: Buffer, positions_R: NDArray[np.uint32], out_RD: NDArray[Any]) -> None:
        """Write the rows; TransportError where the payload is malformed or was made with other tables."""
        fits = out_RD.flags.c_contiguous and out_RD.shape[1] == self.tables.width
        if self._native is None or not fits or self._native.decode(payload, out_RD):
            self.reference.decode(payload, out_RD)  # which says what is wrong, with the values


def native_parts(reference: Reference) -> dict[str, Any]:
    """What the extension makes its codec of: arguments of RotatedCodec or of EntropyCodec."""
    common = {"id": reference.tables.id, "limit": float(reference.limit), "mean": reference.mean}
    if isinstance(reference, EntropyCodec):
        scalar = reference.tables.scalar
        return common | {
            "step": reference.step,
            "sixteenfold": float(reference.sixteenfold),
            "order": scalar.order_D,
            "shift": scalar.shift_D,
            "table": scalar.table_V,
            "frequency": scalar.frequency_TK,
        }
    return common | {
        "quantizer": 0 if reference.quantizer.ID == h4.ID else 2,
        "forward": reference.rotation.forward,
        "backward": reference.rotation.backward,
        "blocks": [(start, stop - start, bits) for start, stop, bits in reference.spans],
        "levels": h4.LEVELS.astype(np.int32).tolist(),
    }


def _reference(name: str, tables: Tables) -> Reference:
    if name == "int4":
        return EntropyCodec(tables)
    return RotatedCodec(h4 if name == "h4" else h8, tables)


def _native_codec(reference: Reference, isa: str) -> Any:
    module = extension()
    if module is None:
        return None
    return getattr(module, type(reference).__name__)(**native_parts(reference), isa=isa)
