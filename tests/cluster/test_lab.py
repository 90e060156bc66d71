"""What is refused before it is probed, and what the user hears if nothing is left. No network."""

from dataclasses import replace

import pytest

from hyperlane.artifacts import Cluster, Rejected, WorkerInfo
from hyperlane.cluster.announce import Entry, check_name, from_service, to_service
from hyperlane.cluster.browse import Heard
from hyperlane.cluster.lab import screen, too_few
from hyperlane.errors import ConfigError
from tests.cluster.entries import make_entry


def refused(*entries: Entry) -> list[tuple[str, str]]:
    _, rejected = screen(Heard(entries, ()), "c")
    return [(one.name, one.reason) for one in rejected]


def test_entry_survives_its_records() -> None:
    entry = make_entry("w-2", hosts=("10.0.0.2", "192.168.1.2"))
    service = to_service(entry)
    assert service.name == "w-2@c._hyperlane._tcp.local."
    assert from_service(service.name, service.properties, entry.hosts) == entry


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({b"version": None}, "invalid literal"),
        ({b"control_port": b"x"}, "invalid literal"),
        ({b"name": b"\xff"}, "codec can't decode"),
    ],
)
def test_malformed_records_are_refused(changes: dict[bytes, bytes | None], message: str) -> None:
    properties = {**to_service(make_entry()).properties, **changes}
    with pytest.raises(ValueError, match=message):
        from_service("w@c", properties, ("127.0.0.1",))


def test_missing_record_is_named() -> None:
    properties = to_service(make_entry()).properties
    del properties[b"data_port"]
    with pytest.raises(ValueError, match="w@c announces no data_port"):
        from_service("w@c", properties, ("127.0.0.1",))


def test_usable_entries_become_candidates() -> None:
    candidates, rejected = screen(Heard((make_entry("a"), make_entry("b")), ()), "c")
    assert [(one.name, one.identity) for one in candidates] == [("a", "a#01"), ("b", "b#01")]
    assert not rejected


def test_other_cluster_version_and_taken_name_are_refused() -> None:
    entry = make_entry()
    assert refused(replace(entry, cluster="kitchen")) == [("w", "belongs to cluster 'kitchen', not 'c'")]
    assert refused(replace(entry, version=9)) == [("w", "speaks protocol version 9, not 3; update the older one")]
    assert refused(entry, replace(entry, control_port=9)) == [
        ("w", "has the name of the worker at 127.0.0.1:7070; start it with another --name")
    ]


def test_nothing_found_says_what_to_do() -> None:
    assert too_few(Cluster(workers=()), "lab", None, 5.0) == (
        "no worker of cluster 'lab' announced itself in 5 s; "
        "start one with hyperlane-worker --allow-lan --cluster lab, or use cluster=static"
    )


def test_too_few_found_says_who_was_seen() -> None:
    worker = WorkerInfo(
        name="pi",
        device="cpu",
        memory_total_bytes=1,
        memory_free_bytes=1,
        control_address="10.0.0.1:1",
        data_addresses=(),
        latency_s=0.1,
    )
    rejected = Rejected(name="w", address="10.0.0.2:7070", reason="did not answer")
    assert too_few(Cluster(workers=(worker,), rejected=(rejected,)), "lab", 2, 5.0) == (
        "only 1 of 2 workers of cluster 'lab' (pi) answered in 5 s; rejected: w (10.0.0.2:7070): did not answer"
    )


@pytest.mark.parametrize("name", ["", "-w", "a b", "a.b", "a@b", "ä", "x" * 31])
def test_names_that_cannot_be_announced_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is no name"):
        check_name(name)
