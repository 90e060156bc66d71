"""The layer store: files named by the SHA-256 of their content, and the manifests that list them.

A folder may serve several processes at once: files appear by rename, whole, and are never written again.
Workers import this module, so it knows nothing of ONNX or torch.

    blobs/<sha256>           graphs and weights
    partial/<sha256>         files being received; a later transfer goes on where the last one stopped
    verified/<sha256>        size and time that the file had when its content was last checked
    manifests/<key>.json     what one model consists of
    calibrations/<key>.json  which codecs passed on one chain, and the files of their tables
"""

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from hyperlane.artifacts import Blob, Manifest, SelfTest, from_json, to_json
from hyperlane.errors import StoreError


class LayerStore:
    """Content-addressed files under `root` (made when first written to). All errors are `StoreError`."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root).expanduser().absolute()
        self.blobs = self.root / "blobs"
        self._manifests = self.root / "manifests"
        self._calibrations = self.root / "calibrations"
        self._partial = self.root / "partial"
        self._verified = self.root / "verified"

    # --- whole files ----------------------------------------------------------------------------------------

    def path(self, sha256: str) -> Path:
        """Where the file with this digest is, or will be."""
        return self.blobs / _checked(sha256)

    def has(self, sha256: str) -> bool:
        """Whether a file of this name is there; `verify` tells whether its content is right too."""
        return self.path(sha256).is_file()

    def put(self, content: bytes | Iterable[bytes | memoryview]) -> Blob:
        """Write `content`, given whole or in chunks; what the store already holds is left as it is."""
        chunks = [content] if isinstance(content, bytes) else content
        sha256, size = hashlib.sha256(), 0
        with self._temporary(self.blobs) as (temporary, file):
            for chunk in chunks:
                sha256.update(chunk)
                size += file.write(chunk)
            blob = Blob(sha256=sha256.hexdigest(), bytes=size)
            if not self.is_intact(blob):
                _publish(temporary, file, self.path(blob.sha256))
                self._mark_verified(blob.sha256)
        return blob

    def read(self, blob: Blob) -> bytes:
        """The content of a small file, checked."""
        with self._disk():
            try:
                content = self.path(blob.sha256).read_bytes()
            except FileNotFoundError:
                raise StoreError(self._missing(blob)) from None
        if hashlib.sha256(content).hexdigest() != blob.sha256:
            raise StoreError(self._altered(blob))
        return content

    def verify(self, blob: Blob) -> None:
        """Raise StoreError unless the file is there, whole and unaltered; hashed again only if it changed."""
        if not self.has(blob.sha256):
            raise StoreError(self._missing(blob))
        if not self.is_intact(blob):
            raise StoreError(self._altered(blob))

    def is_intact(self, blob: Blob) -> bool:
        """Whether the file is there and has exactly the content that its name promises."""
        path = self.path(blob.sha256)
        with self._disk():
            try:
                if path.stat().st_size != blob.bytes:
                    return False
                if self._mark_of(blob.sha256) == _stamp(path):
                    return True
                intact = file_digest(path) == blob.sha256
            except FileNotFoundError:
                return False
            if intact:
                self._mark_verified(blob.sha256)
        return intact

    def discard(self, sha256: str) -> None:
        """Remove a file (an altered one, say) and what was received of it."""
        with self._disk():
            self.path(sha256).unlink(missing_ok=True)
            (self._verified / sha256).unlink(missing_ok=True)
            self._partial_path(sha256).unlink(missing_ok=True)

    # --- files received in pieces ---------------------------------------------------------------------------

    def partial_bytes(self, sha256: str) -> int:
        """How many leading bytes an interrupted transfer left of this file; 0 if none."""
        try:
            return self._partial_path(sha256).stat().st_size
        except FileNotFoundError:
            return 0

    def append(self, sha256: str, offset: int, chunk: bytes | memoryview) -> None:
        """Write the bytes of a file from `offset` on; they must follow what is held, or repeat some of it."""
        held = self.partial_bytes(sha256)
        if offset > held:
            raise StoreError(f"bytes {held} to {offset} of {sha256[:12]} are missing; send from byte {held}")
        with self._disk():
            self._partial.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._partial_path(sha256), os.O_RDWR | os.O_CREAT, 0o644)
            with os.fdopen(descriptor, "r+b") as file:
                file.seek(offset)
                file.write(chunk)

    def commit(self, sha256: str, size_bytes: int) -> Blob:
        """Check a received file and move it among the blobs; a wrong one is dropped, to be sent again."""
        blob, partial = Blob(sha256=sha256, bytes=size_bytes), self._partial_path(sha256)
        if not partial.exists():
            self.verify(blob)  # someone else who shares the folder has committed it
            return blob
        with self._disk():
            if partial.stat().st_size != size_bytes or file_digest(partial) != sha256:
                partial.unlink(missing_ok=True)
                raise StoreError(f"the file received as {sha256[:12]} has other content; send it again")
            self.blobs.mkdir(parents=True, exist_ok=True)
            partial.replace(self.path(sha256))
            self._mark_verified(sha256)
        return blob

    # --- manifests ------------------------------------------------------------------------------------------

    def manifest(self, key: str) -> Manifest | None:
        """The manifest written under `key`, or None if there is none that can be read."""
        with self._disk():
            try:
                return from_json(Manifest, (self._manifests / f"{key}.json").read_text())
            except (FileNotFoundError, ValueError):
                return None

    def put_manifest(self, manifest: Manifest) -> None:
        with self._temporary(self._manifests) as (temporary, file):
            file.write(to_json(manifest).encode())
            _publish(temporary, file, self._manifests / f"{manifest.key}.json")

    # --- self-tests -----------------------------------------------------------------------------------------

    def self_test(self, key: str) -> SelfTest | None:
        """What was kept under `key`, or None if there is nothing that can be read."""
        with self._disk():
            try:
                return from_json(SelfTest, (self._calibrations / f"{key}.json").read_text())
            except (FileNotFoundError, ValueError):
                return None

    def put_self_test(self, result: SelfTest) -> None:
        with self._temporary(self._calibrations) as (temporary, file):
            file.write(to_json(result).encode())
            _publish(temporary, file, self._calibrations / f"{result.key}.json")

    # --- files elsewhere ------------------------------------------------------------------------------------

    def digest_of(self, path: Path) -> str:
        """SHA-256 (hex) of any file, remembered until the file changes: checkpoints are large."""
        path = path.resolve()
        with self._disk():
            mark = self._verified / hashlib.sha256(f"{path} {_stamp(path)}".encode()).hexdigest()
            if mark.is_file():
                return mark.read_text()
            digest = file_digest(path)
            with self._temporary(self._verified) as (temporary, file):
                file.write(digest.encode())
                _publish(temporary, file, mark)
        return digest

    # --- helpers --------------------------------------------------------------------------------------------

    def _mark_verified(self, sha256: str) -> None:
        with self._temporary(self._verified) as (temporary, file):
            file.write(_stamp(self.path(sha256)).encode())
            _publish(temporary, file, self._verified / sha256)

    def _mark_of(self, sha256: str) -> str:
        try:
            return (self._verified / sha256).read_text()
        except FileNotFoundError:
            return ""

    def _partial_path(self, sha256: str) -> Path:
        return self._partial / _checked(sha256)

    @contextmanager
    def _temporary(self, folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
        """A file that is gone afterwards unless it was renamed."""
        with self._disk():
            folder.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=folder, prefix=".new-")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    yield Path(name), file
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(name)

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                message = f"the disk of {self.root} is full; free some space or set store.root"
            else:
                message = f"cannot use the store {self.root}: {error}"
            raise StoreError(message) from error

    def _missing(self, blob: Blob) -> str:
        return f"{self.root} does not hold {blob.sha256[:12]}; run stages=[export,deploy]"

    def _altered(self, blob: Blob) -> str:
        return f"{self.path(blob.sha256)} was truncated or altered; run stages=[export,deploy]"


def _checked(sha256: str) -> str:
    """`sha256` if it is a digest: names come from other machines and must not leave the folder."""
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise StoreError(f"{sha256[:80]!r} is no SHA-256 digest in hex")
    return sha256


def _stamp(path: Path) -> str:
    """Changes whenever someone writes to the file."""
    stat = path.stat()
    return f"{stat.st_ino} {stat.st_size} {stat.st_mtime_ns}"


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _publish(temporary: Path, file: BinaryIO, path: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    temporary.chmod(0o644)
    temporary.replace(path)
