"""Which codecs a worker uses during one epoch: those it was told, or raw where their tables are unusable."""

import hashlib
from dataclasses import dataclass

from hyperlane.control.types import CodecTables, Wiring
from hyperlane.errors import TransportError
from hyperlane.transport.codec import TABLED_NAMES, Codec, Decoders, Tables, make_codec


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochCodecs:
    """`prefill` and `decode` encode what goes out; `incoming` reads what comes in."""

    prefill: Codec
    decode: Codec
    incoming: Decoders
    refused_tables: str = ""
    refused_incoming_tables: str = ""


def open_codecs(wiring: Wiring) -> EpochCodecs:
    """The codecs of a wiring. ConfigError for an unknown name."""
    tables, refused = _checked(wiring.tables)
    incoming, refused_incoming = _checked(wiring.incoming_tables)
    names = [wiring.codec, wiring.decode_codec or wiring.codec]
    if tables is None and not refused and set(names) & set(TABLED_NAMES):
        refused = f"codec {wiring.codec} came without tables"
    if tables is None:
        names = ["raw" if name in TABLED_NAMES else name for name in names]
    prefill, decode = (make_codec(name, tables) for name in names)
    return EpochCodecs(
        prefill=prefill,
        decode=decode,
        incoming=Decoders(incoming),
        refused_tables=refused,
        refused_incoming_tables=refused_incoming,
    )


def _checked(given: CodecTables | None) -> tuple[Tables | None, str]:
    """The tables if they are what their digest says, else why not."""
    if given is None:
        return None, ""
    found = hashlib.sha256(given.content).hexdigest()
    if found != given.sha256:
        return None, f"the tables {given.sha256[:16]} arrived as {found[:16]}"
    try:
        return Tables.from_bytes(given.content), ""
    except TransportError as error:
        return None, str(error)
