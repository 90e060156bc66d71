"""What the receiving end makes of the codec that a frame names."""

import numpy as np
import pytest

from hyperlane.errors import TablesError, TransportError
from hyperlane.transport.calibrate import calibrate
from hyperlane.transport.codec import CODEC_NAMES, TABLED_NAMES, Decoders, make_codec

ROWS = np.random.default_rng(0).standard_normal((40, 64)).astype(np.float32)
POSITIONS = np.arange(40, dtype=np.uint32)
TABLES = calibrate(ROWS)


@pytest.mark.parametrize("name", CODEC_NAMES)
def test_every_codec_is_read_by_the_id_in_its_frames(name: str) -> None:
    codec, out = make_codec(name, TABLES), np.empty_like(ROWS)
    Decoders(TABLES).decode(codec.id, codec.encode(ROWS, POSITIONS), POSITIONS, out)
    assert np.square(out - ROWS).sum() < 0.05 * np.square(ROWS).sum()


@pytest.mark.parametrize("name", TABLED_NAMES)
def test_rows_of_missing_or_other_tables_name_both(name: str) -> None:
    codec, out = make_codec(name, TABLES), np.empty_like(ROWS)
    payload = codec.encode(ROWS, POSITIONS)
    with pytest.raises(TablesError, match=f"{TABLES.id.hex()}, this end holds none"):
        Decoders(None).decode(codec.id, payload, POSITIONS, out)
    other = calibrate(ROWS[:20])
    with pytest.raises(TablesError, match=f"{TABLES.id.hex()}, this end holds {other.id.hex()}"):
        Decoders(other).decode(codec.id, payload, POSITIONS, out)


def test_an_unknown_codec_id_is_an_error_of_the_link() -> None:
    with pytest.raises(TransportError, match="codec id 200"):
        Decoders(TABLES).decode(200, b"", POSITIONS, np.empty_like(ROWS))
