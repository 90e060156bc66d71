"""Every codec by name."""

from hyperlane.errors import ConfigError
from hyperlane.transport.codec.int4_plain import Int4Plain
from hyperlane.transport.codec.int8 import Int8
from hyperlane.transport.codec.protocol import Codec
from hyperlane.transport.codec.raw import Raw
from hyperlane.transport.codec.tabled import TABLED_NAMES, TabledCodec
from hyperlane.transport.codec.tables import Tables

_PLAIN: dict[str, type[Raw] | type[Int8] | type[Int4Plain]] = {
    "raw": Raw,
    "int8": Int8,
    "int4_plain": Int4Plain,
}
PLAIN_NAMES = tuple(_PLAIN)
CODEC_NAMES = (*PLAIN_NAMES, *TABLED_NAMES)


def make_codec(name: str, tables: Tables | None = None) -> Codec:
    """The codec of that name. Raises ConfigError for another name, or where it needs tables and has none."""
    if name in _PLAIN:
        return _PLAIN[name]()
    if name not in TABLED_NAMES:
        raise ConfigError(f"codec {name!r} is unknown; take one of {', '.join(CODEC_NAMES)}")
    if tables is None:
        raise ConfigError(f"codec {name} needs the tables of its boundary; run stages=[deploy,generate]")
    return TabledCodec(name, tables)
