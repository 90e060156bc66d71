"""How hidden rows become bytes: one file a codec. `Codec` says what one is."""

from hyperlane.errors import ConfigError, TransportError
from hyperlane.transport.codec.int4_plain import Int4Plain
from hyperlane.transport.codec.int8 import Int8
from hyperlane.transport.codec.protocol import Codec
from hyperlane.transport.codec.raw import Raw

_CODECS: dict[str, type[Raw] | type[Int8] | type[Int4Plain]] = {
    "raw": Raw,
    "int8": Int8,
    "int4_plain": Int4Plain,
}
CODEC_NAMES = tuple(_CODECS)


def make_codec(name: str) -> Codec:
    """The codec of that name, as in conf/transport/codec. Raises ConfigError for another name."""
    if name not in _CODECS:
        raise ConfigError(f"codec {name!r} is unknown; take one of {', '.join(CODEC_NAMES)}")
    return _CODECS[name]()


def codec_by_id(codec_id: int) -> Codec:
    """The codec of a frame's header. Raises TransportError for an id of no codec."""
    for codec in _CODECS.values():
        if codec.id == codec_id:
            return codec()
    raise TransportError(f"codec id {codec_id} is unknown; run one release everywhere")


__all__ = ["CODEC_NAMES", "Codec", "codec_by_id", "make_codec"]
