"""How hidden rows become bytes: one file a codec. `Codec` says what one is."""

from hyperlane.transport.codec.choices import CODEC_NAMES, make_codec
from hyperlane.transport.codec.decoders import Decoders
from hyperlane.transport.codec.protocol import Codec
from hyperlane.transport.codec.tabled import TABLED_NAMES
from hyperlane.transport.codec.tables import Tables

__all__ = ["CODEC_NAMES", "TABLED_NAMES", "Codec", "Decoders", "Tables", "make_codec"]
