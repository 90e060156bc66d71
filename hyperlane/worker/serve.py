"""A worker's life: listen, announce, serve; on a signal say goodbye and leave nothing behind."""

import logging
import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import trio

from hyperlane import PROTOCOL_VERSION
from hyperlane.cluster.announce import Announcement, Entry
from hyperlane.control.service import ControlServer
from hyperlane.errors import ConfigError, WorkerError
from hyperlane.model.store import LayerStore
from hyperlane.transport.link import Receiver, open_receiver
from hyperlane.worker.live import MAX_FRAME_BYTES, live_parts
from hyperlane.worker.operators import operators_version
from hyperlane.worker.options import QUEUE_DEPTH, Options
from hyperlane.worker.profile import Memory, measure
from hyperlane.worker.worker import About, Worker

FREE_MEMORY_PERIOD_S = 5.0
FREE_MEMORY_STEP_BYTES = 64 << 20  # smaller changes are not announced

log = logging.getLogger(__name__)


async def serve(options: Options) -> None:
    """Until SIGTERM, SIGINT, SIGHUP or, with --parent-stdin, the end of standard input.

    Raises ConfigError for a port in use, ClusterError if the worker cannot announce itself.
    """
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop_on_signal, signals, nursery.cancel_scope)
            if options.parent_stdin:
                nursery.start_soon(stop_on_stdin, nursery.cancel_scope)
            try:
                await _serve(options)
            finally:
                nursery.cancel_scope.cancel()


async def _serve(options: Options) -> None:
    if options.cores:
        os.sched_setaffinity(0, options.cores)  # before there are threads: they inherit it
    memory = partial(measure, options.device, options.memory_bytes)
    memory()  # an unknown device is refused before anything is opened
    async with _listening(options) as ports, _pumps() as spawn:
        worker = _make_worker(options, ports, memory, spawn)
        ports.server.start(worker)
        log.info("listens on %s", options.bind_host)
        try:
            async with _announced(worker, options, ports) as announcement:
                await trio.lowlevel.checkpoint()  # told to stop meanwhile?
                _say_ready(worker, options)
                await _announce_free_memory(announcement, memory)
        finally:
            # In a thread: a SetNextWorker under way may need this one to start its pump.
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(worker.unload)


@dataclass(frozen=True, slots=True)
class _Ports:
    identity: str
    receiver: Receiver
    server: ControlServer

    @property
    def data_port(self) -> int:
        return int(self.receiver.address.rpartition(":")[2])


@asynccontextmanager
async def _listening(options: Options) -> AsyncIterator[_Ports]:
    host, identity = options.bind_host, f"{options.name}#{secrets.token_hex(4)}"
    try:
        receiver = open_receiver(
            host,
            options.data_port,
            identity,
            queue_depth=QUEUE_DEPTH,
            max_frame_bytes=MAX_FRAME_BYTES,
            spin_us=options.spin_us,
        )
    except ConfigError as error:
        at = f"{host}:{options.data_port}"
        raise ConfigError(f"cannot listen on {at} (is the port in use?); set --data-port to another") from error
    try:
        server = ControlServer(host, options.control_port)
        try:
            yield _Ports(identity, receiver, server)
        finally:
            server.close()
    finally:
        receiver.close()


@asynccontextmanager
async def _pumps() -> AsyncIterator[Callable[[Callable[[], None]], None]]:
    """Threads for pumps: started from gRPC's threads, ended (their stop event is set) before this exits."""
    async with trio.open_nursery() as nursery:
        token = trio.lowlevel.current_trio_token()

        async def run(pump: Callable[[], None]) -> None:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(pump)

        def spawn(pump: Callable[[], None]) -> None:
            try:
                trio.from_thread.run_sync(nursery.start_soon, run, pump, trio_token=token)
            except (trio.Cancelled, trio.RunFinishedError, RuntimeError) as error:
                raise WorkerError("this worker is about to exit") from error

        yield spawn


def _make_worker(
    options: Options,
    ports: _Ports,
    memory: Callable[[], Memory],
    spawn: Callable[[Callable[[], None]], None],
) -> Worker:
    about = About(
        name=options.name,
        identity=ports.identity,
        cluster=options.cluster,
        device=options.device,
        operators=operators_version(options.device),
        hosts=options.announced_hosts,
        control_port=ports.server.port,
        data_port=ports.data_port,
    )
    parts = live_parts(options, ports.receiver, ports.identity, lambda: worker.about.name, spawn)
    worker = Worker(
        about,
        LayerStore(options.store),
        parts,
        memory=memory,
        rejected=lambda: ports.receiver.rejected,
        received_bytes=lambda: ports.receiver.wire_bytes,
        threads=options.threads,
    )
    return worker


@asynccontextmanager
async def _announced(worker: Worker, options: Options, ports: _Ports) -> AsyncIterator[Announcement]:
    about, stats = worker.about, worker.stats()
    entry = Entry(
        name=about.name,
        cluster=about.cluster,
        identity=about.identity,
        version=PROTOCOL_VERSION,
        device=about.device,
        memory_total_bytes=stats.memory_total_bytes,
        memory_free_bytes=stats.memory_free_bytes,
        control_port=about.control_port,
        data_port=about.data_port,
        hosts=about.hosts,
    )
    announcement = await trio.to_thread.run_sync(Announcement, entry, options.interface)
    try:
        worker.rename(announcement.entry.name)
        if announcement.entry.name != entry.name:
            log.warning("%s is taken in %s: this is %s", entry.name, entry.cluster, announcement.entry.name)
        yield announcement
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(announcement.close)


async def _announce_free_memory(announcement: Announcement, memory: Callable[[], Memory]) -> None:
    while True:
        await trio.sleep(FREE_MEMORY_PERIOD_S)
        free_bytes = memory().free_bytes
        if abs(free_bytes - announcement.entry.memory_free_bytes) >= FREE_MEMORY_STEP_BYTES:
            await trio.to_thread.run_sync(announcement.update_free, free_bytes)


def _say_ready(worker: Worker, options: Options) -> None:
    about = worker.about
    if options.allow_lan:
        log.warning(
            "ANYONE on the network of %s can use this worker and read what it computes: "
            "there is no authentication. Use it on networks that you trust.",
            ", ".join(about.hosts),
        )
    log.info(
        "worker %s of cluster %s is ready: control %s:%d, data %s:%d",
        about.name,
        about.cluster,
        about.hosts[0],
        about.control_port,
        about.hosts[0],
        about.data_port,
    )


async def stop_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for number in signals:
        log.info("%s: goodbye", signal.Signals(number).name)
        scope.cancel()
        return


async def stop_on_stdin(scope: trio.CancelScope) -> None:
    """The parent holds the other end; the kernel closes it even if the parent is killed."""
    async with trio.lowlevel.FdStream(os.dup(0)) as stdin:
        async for _ in stdin:
            pass
    log.info("standard input closed: goodbye")
    scope.cancel()
