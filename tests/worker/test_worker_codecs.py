"""Which codecs a worker takes from its wiring: tables must be what their digest says."""

from dataclasses import replace

import numpy as np
import pytest

from hyperlane.control.types import CodecTables
from hyperlane.errors import ConfigError
from hyperlane.transport.calibrate import calibrate
from hyperlane.worker.codecs import open_codecs
from tests.worker.fakes import wiring

CONTENT = calibrate(np.random.default_rng(0).standard_normal((50, 64)).astype(np.float32)).to_bytes()
GOOD = CodecTables(sha256=calibrate(np.random.default_rng(0).standard_normal((50, 64))).digest, content=CONTENT)


def test_each_phase_has_its_codec() -> None:
    codecs = open_codecs(wiring(codec="int4", decode_codec="h8", tables=GOOD, incoming_tables=GOOD))
    assert (codecs.prefill.name, codecs.decode.name) == ("int4", "h8")
    assert open_codecs(wiring(codec="int8")).decode.name == "int8"


@pytest.mark.parametrize(
    ("tables", "why"),
    [
        (replace(GOOD, content=CONTENT[:-1] + b"\7"), "arrived as"),
        (replace(GOOD, sha256="0" * 64), "the tables 0000000000000000 arrived as"),
        (
            CodecTables(sha256="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", content=b""),
            "no codec",
        ),
        (None, "came without tables"),
    ],
)
def test_unusable_tables_mean_raw_rows_and_a_reason(tables: CodecTables | None, why: str) -> None:
    codecs = open_codecs(wiring(codec="int4", decode_codec="raw", tables=tables))
    assert (codecs.prefill.name, codecs.decode.name) == ("raw", "raw")
    assert why in codecs.refused_tables
    if tables is not None:
        assert why in open_codecs(wiring(incoming_tables=tables)).refused_incoming_tables


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(ConfigError, match="codec 'int3' is unknown"):
        open_codecs(wiring(codec="int3"))
