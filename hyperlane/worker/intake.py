"""What a worker holds of the files it is asked about, and how it takes in the rest."""

from collections.abc import Sequence

from hyperlane.artifacts import Blob
from hyperlane.errors import StoreError
from hyperlane.model.store import LayerStore


def held_bytes(store: LayerStore, blobs: Sequence[Blob]) -> list[int]:
    """For each file how many leading bytes need not be sent. A truncated or altered file is dropped: 0."""
    return [_held(store, blob) for blob in blobs]


class Intake:
    """Receives the chunks of one LoadShard into the store; each file's digest is checked at its last byte."""

    def __init__(self, store: LayerStore, expected: Sequence[Blob]) -> None:
        self._store = store
        self._sizes = {blob.sha256: blob.bytes for blob in expected}
        self.files = 0
        self.bytes = 0

    def add(self, sha256: str, offset: int, data: bytes) -> None:
        """Raises StoreError for a file that was not announced, a gap, too many bytes or a wrong digest."""
        size = self._sizes.get(sha256)
        if size is None:
            raise StoreError(f"a chunk of {sha256[:12]} came, which the shard's header does not name")
        stop = offset + len(data)
        if stop > size:
            raise StoreError(f"byte {stop} of {sha256[:12]} came, but the file has {size}; send it again")
        self._store.append(sha256, offset, data)
        self.bytes += len(data)
        if stop == size:
            self._store.commit(sha256, size)
            self.files += 1


def _held(store: LayerStore, blob: Blob) -> int:
    if store.is_intact(blob):
        return blob.bytes
    if store.has(blob.sha256):
        store.discard(blob.sha256)
    partial_bytes = store.partial_bytes(blob.sha256)
    if partial_bytes < blob.bytes:
        return partial_bytes
    try:  # received to the end, but interrupted before it was committed
        store.commit(blob.sha256, blob.bytes)
    except StoreError:
        return 0
    return blob.bytes
