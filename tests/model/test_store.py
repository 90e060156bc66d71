import errno
import hashlib
import os
from pathlib import Path

import pytest

from hyperlane.artifacts import Blob, Manifest
from hyperlane.errors import StoreError
from hyperlane.model.store import LayerStore

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BLOB = Blob(sha256=SHA256, bytes=len(CONTENT))


@pytest.fixture
def store(tmp_path: Path) -> LayerStore:
    return LayerStore(tmp_path / "store")


def files(store: LayerStore) -> list[str]:
    found = sorted(str(p.relative_to(store.root)) for p in store.root.rglob("*") if p.is_file())
    return [name for name in found if not name.startswith("verified/")]


def test_a_file_is_named_by_its_content_however_it_came(store: LayerStore) -> None:
    assert store.put(CONTENT) == store.put([CONTENT[:100], memoryview(CONTENT)[100:]]) == BLOB
    assert store.path(SHA256).read_bytes() == store.read(BLOB) == CONTENT
    assert files(store) == [f"blobs/{SHA256}"]


def test_nothing_is_left_of_a_write_that_fails(store: LayerStore) -> None:
    def chunks():
        yield b"half"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.put(chunks())
    assert files(store) == []


@pytest.mark.parametrize("content", [CONTENT[:-1], b"x" + CONTENT[1:]], ids=["truncated", "altered"])
def test_a_damaged_file_is_noticed_and_made_again(store: LayerStore, content: bytes) -> None:
    store.put(CONTENT)
    store.verify(BLOB)
    store.path(SHA256).write_bytes(content)
    os.utime(store.path(SHA256), ns=(1, 1))
    assert not store.is_intact(BLOB)
    with pytest.raises(StoreError, match="truncated or altered"):
        store.verify(BLOB)
    with pytest.raises(StoreError, match="truncated or altered"):
        store.read(BLOB)
    store.put(CONTENT)
    store.verify(BLOB)


def test_a_missing_file_is_said_to_be_missing(store: LayerStore) -> None:
    assert not store.has(SHA256)
    with pytest.raises(StoreError, match=f"does not hold {SHA256[:12]}"):
        store.verify(BLOB)
    with pytest.raises(StoreError, match=f"does not hold {SHA256[:12]}"):
        store.read(BLOB)


def test_a_transfer_goes_on_where_it_stopped(store: LayerStore) -> None:
    store.append(SHA256, 0, CONTENT[:1000])
    later = LayerStore(store.root)
    assert later.partial_bytes(SHA256) == 1000
    with pytest.raises(StoreError, match="send from byte 1000"):
        later.append(SHA256, 1001, CONTENT[1001:])
    later.append(SHA256, 900, CONTENT[900:])
    assert later.commit(SHA256, len(CONTENT)) == BLOB
    assert later.commit(SHA256, len(CONTENT)) == BLOB, "another worker on the same folder may commit it too"
    assert (later.partial_bytes(SHA256), files(later)) == (0, [f"blobs/{SHA256}"])


def test_a_wrong_file_is_refused_and_dropped(store: LayerStore) -> None:
    store.append(SHA256, 0, CONTENT[:-1] + b"?")
    with pytest.raises(StoreError, match="other content"):
        store.commit(SHA256, len(CONTENT))
    assert files(store) == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "A" * 64, "", "0" * 63])
def test_only_digests_are_names(store: LayerStore, name: str) -> None:
    for use in (store.path, store.has, store.partial_bytes, store.discard):
        with pytest.raises(StoreError, match="no SHA-256"):
            use(name)


def test_a_full_disk_is_named(store: LayerStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=f"the disk of {store.root} is full"):
        store.put(CONTENT)
    assert files(store) == []


def test_manifests_come_back_as_written(store: LayerStore) -> None:
    manifest = Manifest(
        key="k",
        family="llama",
        dtype="float32",
        quantization="none",
        layers=0,
        hidden_size=1,
        vocab_size=1,
        parts=(),
    )
    assert store.manifest("k") is None
    store.put_manifest(manifest)
    assert store.manifest("k") == manifest
    (store.root / "manifests" / "k.json").write_text("{")
    assert store.manifest("k") is None
