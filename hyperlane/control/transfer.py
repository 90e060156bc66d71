"""Sending a shard: ask what the worker lacks, stream that, resume where a broken transfer stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from hyperlane.artifacts import Blob
from hyperlane.control import messages
from hyperlane.control import worker_pb2 as pb
from hyperlane.control.channel import CHUNK_BYTES, SLOW_DISK_BYTES_PER_S, SLOW_LINK_BYTES_PER_S, is_transient
from hyperlane.control.types import Loaded, ShardSpec
from hyperlane.errors import HyperlaneError, StoreError

if TYPE_CHECKING:
    from hyperlane.control.client import ControlClient

PathOf = Callable[[str], Path]
Progress = Callable[[int, int], None]

ATTEMPTS = 4
BACKOFF_S = 0.2  # doubled after each attempt


async def load_shard(
    client: ControlClient,
    spec: ShardSpec,
    path_of: PathOf,
    progress: Progress,
    load_timeout_s: float,
    *,
    files_only: bool,
) -> Loaded:
    """See `ControlClient.load_shard`."""
    sent = _Sent(files_only)
    for attempt in range(ATTEMPTS):
        try:
            return await _attempt(client, spec, path_of, progress, load_timeout_s, sent)
        except HyperlaneError as error:
            if attempt == ATTEMPTS - 1 or not is_transient(error.__cause__):
                raise
        await trio.sleep(BACKOFF_S * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


@dataclass(slots=True)
class _Sent:
    """What went out over all attempts."""

    files_only: bool
    files: set[str] = field(default_factory=set)
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Lack:
    """A file that the worker lacks from byte `offset` on."""

    blob: Blob
    offset: int


async def _attempt(
    client: ControlClient,
    spec: ShardSpec,
    path_of: PathOf,
    progress: Progress,
    load_timeout_s: float,
    sent: _Sent,
) -> Loaded:
    files = tuple(dict.fromkeys(spec.files))  # shared weights may be named twice
    held = await client.held_bytes(files)
    lacking = [_Lack(blob, at) for blob, at in zip(files, held, strict=True) if at < blob.bytes]
    await trio.to_thread.run_sync(_check_sources, lacking, path_of)
    total_bytes = sum(lack.blob.bytes - lack.offset for lack in lacking)
    timeout_s = load_timeout_s + total_bytes / SLOW_LINK_BYTES_PER_S
    timeout_s += sum(blob.bytes for blob in files) / SLOW_DISK_BYTES_PER_S
    reply = await client.send_files(_requests(spec, lacking, path_of, progress, sent), timeout_s)
    return Loaded(loaded=reply.loaded, sent_files=len(sent.files), sent_bytes=sent.bytes, load_s=reply.load_s)


def _check_sources(lacking: Sequence[_Lack], path_of: PathOf) -> None:
    """Before the stream opens: an error inside of it would reach the user as a cancelled call."""
    for lack in lacking:
        path = path_of(lack.blob.sha256)
        if not path.is_file() or path.stat().st_size != lack.blob.bytes:
            raise StoreError(f"{path} is missing or was truncated; run stages=[export,deploy]")


def _requests(
    spec: ShardSpec, lacking: Sequence[_Lack], path_of: PathOf, progress: Progress, sent: _Sent
) -> Iterator[Any]:
    """The header, then the chunks. Runs in a thread of gRPC's."""
    yield pb.LoadShardRequest(header=messages.header_to_message(spec), files_only=sent.files_only)
    total_bytes = sum(lack.blob.bytes - lack.offset for lack in lacking)
    done_bytes = 0
    for lack in lacking:
        sent.files.add(lack.blob.sha256)
        for chunk in _chunks(lack, path_of(lack.blob.sha256)):
            yield pb.LoadShardRequest(chunk=chunk)
            sent.bytes += len(chunk.data)
            done_bytes += len(chunk.data)
            progress(done_bytes, total_bytes)


def _chunks(lack: _Lack, path: Path) -> Iterator[Any]:
    offset = lack.offset
    with path.open("rb") as file:
        file.seek(offset)
        while data := file.read(CHUNK_BYTES):
            yield pb.Chunk(sha256=lack.blob.sha256, offset=offset, data=data)
            offset += len(data)
