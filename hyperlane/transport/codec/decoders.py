"""The receiving end of a link: whatever codec a frame names, as far as its tables are here."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.errors import TablesError, TransportError
from hyperlane.transport.codec.choices import CODEC_NAMES, PLAIN_NAMES, make_codec
from hyperlane.transport.codec.protocol import Buffer, Codec
from hyperlane.transport.codec.tabled import TABLED_IDS
from hyperlane.transport.codec.tables import Tables


class Decoders:
    """Every codec, those with tables bound to `tables`; without them such frames are refused."""

    def __init__(self, tables: Tables | None) -> None:
        names = PLAIN_NAMES if tables is None else CODEC_NAMES
        self._codecs: dict[int, Codec] = {codec.id: codec for codec in (make_codec(name, tables) for name in names)}

    def codec(self, codec_id: int) -> Codec | None:
        """The codec of that id, where it can be used."""
        return self._codecs.get(codec_id)

    def decode(self, codec_id: int, payload: Buffer, positions_R: NDArray[np.uint32], out_RD: NDArray[Any]) -> None:
        """Write the rows; TablesError without the tables that they were made with, TransportError for other faults."""
        codec = self._codecs.get(codec_id)
        if codec is not None:
            codec.decode(payload, positions_R, out_RD)
        elif codec_id in TABLED_IDS:
            made_with = np.frombuffer(payload, np.uint8)[:8].tobytes().hex()
            raise TablesError(f"the frame was made with codec tables {made_with}, this end holds none; deploy again")
        else:
            raise TransportError(f"codec id {codec_id} is unknown; run one release everywhere")
