"""The wiring of an epoch: which codec each link carries, and both of its ends told so, the last worker first."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from hyperlane.artifacts import Boundary, Shard
from hyperlane.control.client import ControlClient
from hyperlane.control.types import CodecTables, Wiring
from hyperlane.model.store import LayerStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LinkCodecs:
    """What one link between workers carries, and the tables that both its ends get."""

    prefill: str
    decode: str
    tables: CodecTables | None


RAW = LinkCodecs("raw", "raw", None)


@dataclass(frozen=True, slots=True)
class Home:
    """The coordinator's data port."""

    identity: str
    address: str


def link_codecs(boundary: Boundary, store: LayerStore) -> LinkCodecs:
    """What a boundary's link should carry; StoreError where its tables are gone."""
    tables = None
    if boundary.tables is not None:
        tables = CodecTables(sha256=boundary.tables.sha256, content=store.read(boundary.tables))
    return LinkCodecs(boundary.prefill or boundary.codec, boundary.decode or boundary.codec, tables)


def wire(
    clients: Sequence[ControlClient],
    shards: Sequence[Shard],
    home: Home,
    links: Sequence[LinkCodecs],
    epoch: int,
    *,
    shortcut: bool = False,
) -> tuple[LinkCodecs, ...]:
    """Wire all workers for `epoch`. Returns what the links carry: raw where an end refuses the tables.

    shortcut: two workers that reach the same memory pass rows there.
    """
    carried = list(links)
    identities = [client.stats().result().identity for client in clients]
    for index in reversed(range(len(clients))):
        is_last = index == len(clients) - 1
        outgoing = RAW if is_last else carried[index]
        wired = (
            clients[index]
            .wire(
                Wiring(
                    epoch=epoch,
                    identity=home.identity if is_last else identities[index + 1],
                    data_addresses=(home.address,) if is_last else shards[index + 1].data_addresses,
                    control_address=None if is_last else shards[index + 1].control_address,
                    codec=outgoing.prefill,
                    decode_codec=outgoing.decode,
                    tables=outgoing.tables,
                    incoming_tables=carried[index - 1].tables if index else None,
                    graph_sha256=shards[index].digest,
                    shortcut=shortcut and not is_last,
                )
            )
            .result()
        )
        if wired.refused_incoming_tables:
            carried[index - 1] = _raw(shards[index - 1], shards[index], shards[index], wired.refused_incoming_tables)
        if wired.refused_tables:
            carried[index] = _raw(shards[index], shards[index + 1], shards[index], wired.refused_tables)
    return tuple(carried)


def _raw(source: Shard, target: Shard, refusing: Shard, why: str) -> LinkCodecs:
    log.warning("link %s -> %s carries raw rows: %s says: %s", source.worker, target.worker, refusing.worker, why)
    return RAW
