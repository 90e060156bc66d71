"""Receiving files: resumed, checked, and again if they were damaged."""

import hashlib
from pathlib import Path

import pytest

from hyperlane.artifacts import Blob
from hyperlane.errors import StoreError
from hyperlane.model.store import LayerStore
from hyperlane.worker.intake import Intake, held_bytes

CONTENT = b"0123456789" * 100
BLOB = Blob(sha256=hashlib.sha256(CONTENT).hexdigest(), bytes=len(CONTENT))


@pytest.fixture
def store(tmp_path: Path) -> LayerStore:
    return LayerStore(tmp_path)


def test_nothing_is_held_of_an_unknown_file(store: LayerStore) -> None:
    assert held_bytes(store, [BLOB]) == [0]


def test_whole_file_is_committed_at_its_last_byte(store: LayerStore) -> None:
    intake = Intake(store, [BLOB])
    intake.add(BLOB.sha256, 0, CONTENT[:700])
    assert held_bytes(store, [BLOB]) == [700]
    assert (intake.files, intake.bytes) == (0, 700)
    intake.add(BLOB.sha256, 700, CONTENT[700:])
    assert store.path(BLOB.sha256).read_bytes() == CONTENT
    assert held_bytes(store, [BLOB]) == [1000]
    assert (intake.files, intake.bytes) == (1, 1000)


def test_transfer_resumes_in_a_new_process(store: LayerStore) -> None:
    Intake(store, [BLOB]).add(BLOB.sha256, 0, CONTENT[:700])
    again = LayerStore(store.root)
    (held,) = held_bytes(again, [BLOB])
    Intake(again, [BLOB]).add(BLOB.sha256, held, CONTENT[held:])
    assert again.is_intact(BLOB)


def test_file_received_whole_but_not_committed_counts_as_held(store: LayerStore) -> None:
    store.append(BLOB.sha256, 0, CONTENT)
    assert held_bytes(store, [BLOB]) == [1000]
    assert store.is_intact(BLOB)


def test_wrong_bytes_received_whole_are_dropped(store: LayerStore) -> None:
    store.append(BLOB.sha256, 0, b"x" * 1000)
    assert held_bytes(store, [BLOB]) == [0]
    with pytest.raises(StoreError, match="other content; send it again"):
        Intake(store, [BLOB]).add(BLOB.sha256, 0, b"y" * 1000)
    assert held_bytes(store, [BLOB]) == [0]


@pytest.mark.parametrize("damaged", [CONTENT[:999], b"x" + CONTENT[1:]])
def test_truncated_or_altered_file_is_fetched_again(store: LayerStore, damaged: bytes) -> None:
    store.put(CONTENT)
    store.path(BLOB.sha256).write_bytes(damaged)
    assert held_bytes(store, [BLOB]) == [0]
    Intake(store, [BLOB]).add(BLOB.sha256, 0, CONTENT)
    assert store.is_intact(BLOB)


def test_unannounced_file_and_surplus_bytes_are_refused(store: LayerStore) -> None:
    intake = Intake(store, [BLOB])
    with pytest.raises(StoreError, match="header does not name"):
        intake.add("0" * 64, 0, b"x")
    with pytest.raises(StoreError, match=r"byte 1001 of .* came, but the file has 1000"):
        intake.add(BLOB.sha256, 0, CONTENT + b"x")
    assert held_bytes(store, [BLOB]) == [0]
