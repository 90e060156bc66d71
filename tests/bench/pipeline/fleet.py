"""Worker processes on this machine, a model's shards on them, and the chain between: what a run of Hyperlane does."""

import hashlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import trio

from hyperlane.artifacts import Deployment, Manifest, Shard
from hyperlane.control.client import ControlClient
from hyperlane.control.types import CodecTables, ShardSpec
from hyperlane.errors import WorkerError
from hyperlane.generate.chain import Chain, LinkOptions, open_chain
from hyperlane.generate.wiring import RAW, LinkCodecs
from hyperlane.model.assemble import assemble, shard_blobs
from hyperlane.model.store import LayerStore
from hyperlane.transport.calibrate import calibrate
from hyperlane.transport.codec import TABLED_NAMES
from tests.bench.pipeline.bare import graph_choices

START_S = 60.0
LOAD_S = 240.0
READY = re.compile(r"is ready: control (\S+), data (\S+)")
OPTIONS = LinkOptions(
    native=True, queue_depth=8, max_frame_bytes=256 << 20, connect_timeout_s=10.0, step_timeout_s=60.0
)


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that is ready."""

    name: str
    device: str
    control: str
    data: str


@contextmanager
def fleet(store: Path, devices: Sequence[str], logs: Path, extra: Sequence[str] = ()) -> Iterator[list[Worker]]:
    """A worker for each device, with `store` between them; their logs are files in `logs`."""
    logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as exits:
        started = [
            exits.enter_context(_worker(f"w{i}", device, store, logs, extra)) for i, device in enumerate(devices)
        ]
        yield [
            Worker(f"w{i}", device, *_ready(process, log))
            for i, (device, (process, log)) in enumerate(zip(devices, started, strict=True))
        ]


@contextmanager
def _worker(
    name: str, device: str, store: Path, logs: Path, extra: Sequence[str]
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    log = logs / f"{name}.log"
    words = ["--name", name, "--cluster", "bench", "--store", str(store), "--device", device, "--threads", "4"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "hyperlane.worker", "--parent-stdin", *words, *extra],
            stdin=subprocess.PIPE,
            stderr=output,
        )
    try:
        yield process, log
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready(process: "subprocess.Popen[bytes]", log: Path) -> tuple[str, str]:
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s:
        found = READY.search(log.read_text())
        if found:
            return found[1], found[2]
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise WorkerError(f"a worker did not start: {log.read_text().strip()[-400:]}")


@contextmanager
def chain_of(
    workers: Sequence[Worker],
    manifests: Sequence[Manifest],
    store: LayerStore,
    *,
    bounds: Sequence[int],
    slots: int,
    context: int,
    codec: str,
    rows: Path | None = None,
    shortcut: bool = True,
) -> Iterator[Chain]:
    """The chain of shards between `bounds`, one manifest a worker, loaded and wired.

    rows: a file of hidden states to calibrate the codec with; without it they are made up.
    """
    shards = trio.run(_deploy, workers, manifests, store, bounds, slots, context)
    manifest = manifests[0]
    deployment = Deployment(
        key=manifest.key,
        shards=tuple(shards),
        boundaries=(),
        slots=slots,
        context=context,
        hidden_size=manifest.hidden_size,
        vocab_size=manifest.vocab_size,
        dtype=manifest.dtype,
    )
    links = [link_codecs(codec, manifest.hidden_size, rows)] * (len(shards) - 1)
    with open_chain(deployment, links, replace(OPTIONS, shortcut=shortcut)) as chain:
        yield chain


def link_codecs(codec: str, width: int, file: Path | None) -> LinkCodecs:
    """With tables where the codec takes some."""
    if codec == "raw":
        return RAW
    if codec not in TABLED_NAMES:
        return LinkCodecs(codec, codec, None)
    if file is not None and file.exists():
        rows = np.load(file)
    else:
        rows = np.random.default_rng(3).normal(size=(256, width)).astype(np.float32)
    tables = calibrate(rows)
    return LinkCodecs(codec, codec, CodecTables(sha256=_sha256(tables.to_bytes()), content=tables.to_bytes()))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def _deploy(
    workers: Sequence[Worker],
    manifests: Sequence[Manifest],
    store: LayerStore,
    bounds: Sequence[int],
    slots: int,
    context: int,
) -> list[Shard]:
    shards: dict[str, Shard] = {}

    async def one(index: int) -> None:
        worker, manifest, start, stop = workers[index], manifests[index], bounds[index], bounds[index + 1]
        graph = store.put(assemble(manifest, store, start, stop, **graph_choices(manifest, worker.device)))
        spec = ShardSpec(
            key=manifest.key,
            graph=graph,
            weights=shard_blobs(manifest, start, stop),
            start=start,
            stop=stop,
            first=start == 0,
            last=stop == manifest.layers,
            dtype=manifest.dtype,
            slots=slots,
            context=context,
        )
        with ControlClient(worker.control, worker.name) as client:
            await client.load_shard(spec, store.path, load_timeout_s=LOAD_S)
        shards[worker.name] = Shard(
            worker=worker.name,
            start=start,
            stop=stop,
            digest=graph.sha256,
            control_address=worker.control,
            data_addresses=(worker.data,),
            loaded=True,
            sent_files=0,
            sent_bytes=0,
        )

    async with trio.open_nursery() as nursery:
        for index in range(len(workers)):
            nursery.start_soon(one, index)
    return [shards[worker.name] for worker in workers]
