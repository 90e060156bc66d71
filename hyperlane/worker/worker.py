"""One worker: EMPTY -> LOADED (a shard) -> WIRED (to the next of the chain) -> READY (its pump runs)."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from threading import Event, Lock, RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane import PROTOCOL_VERSION
from hyperlane.artifacts import Blob
from hyperlane.control.types import (
    ComputeSpeed,
    LinkSpeed,
    Probe,
    ShardHeld,
    ShardSpec,
    State,
    Step,
    Wired,
    Wiring,
    WorkerStats,
)
from hyperlane.errors import HyperlaneError, WorkerError, one_line
from hyperlane.model.store import LayerStore
from hyperlane.timeline.record import Records
from hyperlane.worker import speed
from hyperlane.worker.codecs import EpochCodecs, open_codecs
from hyperlane.worker.decode_call import DecodeCall
from hyperlane.worker.execute import compared, run_step
from hyperlane.worker.gpu import DeviceRows
from hyperlane.worker.intake import Intake, held_bytes
from hyperlane.worker.parts import Next, Parts, Pump, Session, StepResult
from hyperlane.worker.profile import Memory

STOP_TIMEOUT_S = 15.0  # a step under way is not cut off; SetNextWorker's deadline is 20 s

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a worker is called and where it listens."""

    name: str
    identity: str
    cluster: str
    device: str
    operators: int
    hosts: tuple[str, ...]
    control_port: int
    data_port: int


class Worker:
    """Transitions are serialized by one lock; `stats` never waits for it. Errors are `HyperlaneError`s."""

    def __init__(
        self,
        about: About,
        store: LayerStore,
        parts: Parts,
        *,
        memory: Callable[[], Memory],
        rejected: Callable[[], Sequence[str]],
        received_bytes: Callable[[], int],
        threads: int = 1,
    ) -> None:
        self.about = about
        self._store = store
        self._parts = parts
        self._memory = memory
        self._rejected = rejected
        self._received_bytes = received_bytes
        self._threads = threads
        self._transition = RLock()
        self._measuring = Lock()
        self._loaded: _Loaded | None = None
        self._chain: _Chain | None = None
        self._failure = ""
        self._epoch = 0

    def rename(self, name: str) -> None:
        self.about = replace(self.about, name=name)

    def stats(self) -> WorkerStats:
        memory, loaded, chain = self._memory(), self._loaded, self._chain
        return WorkerStats(
            **{name: getattr(self.about, name) for name in self.about.__slots__},
            protocol_version=PROTOCOL_VERSION,
            memory_total_bytes=memory.total_bytes,
            memory_free_bytes=memory.free_bytes,
            memory_used_bytes=memory.used_bytes,
            state=_state(loaded, chain),
            shard=None if loaded is None else _held(loaded.spec),
            epoch=self._epoch,
            failure=self._failure,
            links=() if chain is None or chain.pump is None else (chain.pump.counters(),),
            rejected=tuple(self._rejected()),
            received_bytes=self._received_bytes(),
        )

    def held_bytes(self, blobs: Sequence[Blob]) -> list[int]:
        """How many leading bytes of each file need not be sent."""
        return held_bytes(self._store, blobs)

    def intake(self, spec: ShardSpec) -> Intake:
        """Takes in the files of `spec`; `load` comes after."""
        return Intake(self._store, spec.files)

    def load(self, spec: ShardSpec) -> tuple[bool, float]:
        """Load a shard whose files are all here, in place of the one held.

        Returns whether anything had to be loaded, and the seconds it took. Raises StoreError naming a file
        that is missing or altered, WorkerError if the session cannot be made.
        """
        with self._transition:
            if self._loaded is not None and self._loaded.spec == spec:
                return False, 0.0
            start_s = time.monotonic()
            for blob in spec.files:
                self._store.verify(blob)
            self.unload()
            session = self._parts.open_session(self._store.path(spec.graph.sha256), spec)
            self._loaded = _Loaded(_OneAtATime(session), spec)
            return True, time.monotonic() - start_s

    def wire(self, wiring: Wiring) -> Wired:
        """Open the link to the next of the chain and start the pump of this epoch.

        Without data addresses no link is opened: such a chain serves ExecutePipeline only. Codec tables that
        are not what their digest says are refused, and raw rows are sent. Raises WorkerError without a shard
        or for an older epoch, TransportError if the next cannot be reached.
        """
        with self._transition:
            if self._loaded is None:
                raise WorkerError(f"worker {self.about.name} holds no shard; run stages=[deploy,generate]")
            if self._chain is not None and self._chain.wiring == wiring and not self._chain.ended:
                return self._chain.wired
            self._check_wiring(wiring, _held(self._loaded.spec))
            codecs = open_codecs(wiring)
            for refused in filter(None, (codecs.refused_tables, codecs.refused_incoming_tables)):
                log.warning("epoch %d: %s", wiring.epoch, refused)
            self._unwire()
            self._epoch, self._failure = wiring.epoch, ""
            self._chain = self._open_chain(self._loaded, wiring, codecs)
            return self._chain.wired

    def _check_wiring(self, wiring: Wiring, held: ShardHeld) -> None:
        """Another run may have deployed here meanwhile, or have wired this very epoch."""
        if wiring.graph_sha256 and wiring.graph_sha256 != held.graph_sha256:
            raise WorkerError(
                f"worker {self.about.name} holds another shard by now, layers {held.start}:{held.stop} "
                f"({held.graph_sha256[:6]}); run stages=[deploy,generate]"
            )
        if wiring.epoch <= self._epoch:
            raise WorkerError(
                f"epoch {wiring.epoch} is over on worker {self.about.name}, another run uses it; "
                f"wait for that run, or run again to take over"
            )

    def measure_link(self, codecs: Sequence[str], rows: Sequence[int], width: int) -> LinkSpeed:
        """Time the link to the next worker, and codecs on frames of `rows` of `width`; WorkerError if not wired."""
        loaded, chain = self._loaded, self._chain
        if loaded is None or chain is None or chain.ended:
            raise WorkerError(f"worker {self.about.name} is not wired to a chain; call SetNextWorker first")
        return self._parts.measure_link(chain.wiring, codecs, rows, width, loaded.spec.dtype)

    def records(self, steps: int) -> Records:
        """The clock, and the records of this epoch's latest steps, at most so many."""
        chain = self._chain
        kept = () if chain is None or chain.pump is None else chain.pump.records()
        return Records(time.monotonic_ns(), kept[len(kept) - min(steps, len(kept)) :])

    def measure_compute(self, probe: Probe) -> ComputeSpeed:
        """Time the steps of a probe; what was found before on such hardware is taken from the store."""
        with self._measuring:
            return speed.measure_compute(
                probe, self._parts.open_session, self._store, device=self.about.device, threads=self._threads
            )

    def execute(self, steps: Iterable[Step], timeout_s: float) -> Iterator[Step]:
        """Run steps through this shard and all that follow it; yields the last worker's replies in order."""
        loaded, chain = self._loaded, self._chain
        if loaded is None or chain is None:
            raise WorkerError(f"worker {self.about.name} is not wired to a chain; call SetNextWorker first")
        epoch = chain.wiring.epoch
        computed = (run_step(step, loaded.session, epoch, self.about.name) for step in steps)
        if chain.wiring.control_address is None:
            yield from computed
            return
        relay = self._parts.open_relay(chain.wiring.control_address)
        try:
            yield from relay.execute(computed, timeout_s)
        finally:
            relay.close()

    def compare(self, pairs: Iterable[Step]) -> Iterator[NDArray[np.float64]]:
        """For each two steps through this shard, the last: KL(first || second) of each output row, in nats."""
        loaded, chain = self._loaded, self._chain
        if loaded is None or chain is None:
            raise WorkerError(f"worker {self.about.name} is not wired to a chain; call SetNextWorker first")
        epoch, session, name = chain.wiring.epoch, loaded.session, self.about.name
        return compared(run_step(step, session, epoch, name) for step in pairs)

    def unload(self) -> None:
        """Drop wiring, session and its memory; files stay in the store."""
        with self._transition:
            self._unwire()
            loaded, self._loaded = self._loaded, None
            if loaded is not None:
                loaded.session.close()

    def _open_chain(self, loaded: "_Loaded", wiring: Wiring, codecs: EpochCodecs) -> "_Chain":
        if not wiring.data_addresses:
            return _Chain(wiring, codecs)
        link = self._parts.connect(wiring)
        chain = _Chain(wiring, codecs, link, self._parts.open_pump(loaded.session, link, wiring, codecs, loaded.spec))
        self._parts.spawn(lambda: self._run_pump(chain))
        return chain

    def _run_pump(self, chain: "_Chain") -> None:
        assert chain.pump is not None
        try:
            chain.pump.run(chain.stop)
        except HyperlaneError as error:
            if not chain.stop.is_set():
                self._failure = one_line(error)
                log.warning("the pump of epoch %d ended: %s", chain.wiring.epoch, self._failure)
        except Exception as error:
            self._failure = f"{type(error).__name__}: {one_line(error)}"
            log.exception("the pump of epoch %d failed", chain.wiring.epoch)
        finally:
            chain.done.set()

    def _unwire(self) -> None:
        chain, self._chain = self._chain, None
        if chain is None or chain.link is None:
            return
        chain.stop.set()
        chain.done.wait(STOP_TIMEOUT_S / 2)
        chain.link.close()  # ends a send that waits for a peer that does not read
        if not chain.done.wait(STOP_TIMEOUT_S / 2):
            raise WorkerError(f"the pump of {self.about.name} did not stop in {STOP_TIMEOUT_S:g} s; restart it")


class _OneAtATime:
    """A session that the pump and ExecutePipeline may both call."""

    def __init__(self, session: Session) -> None:
        self._session: Session | None = session
        self._lock = Lock()

    def run(self, runs: Sequence[Any], rows: NDArray[Any] | DeviceRows, want_logits: bool) -> StepResult:
        with self._lock:
            if self._session is None:
                raise WorkerError("the shard was unloaded while a step was on its way")
            return self._session.run(runs, rows, want_logits)

    def copy(self, source: int, target: int, count: int) -> None:
        with self._lock:
            if self._session is None:
                raise WorkerError("the shard was unloaded while a step was on its way")
            self._session.copy(source, target, count)

    def decode_call(self, rows: int) -> DecodeCall | None:
        with self._lock:
            call = None if self._session is None else self._session.decode_call(rows)
        if call is None:
            return None
        compute = call.run

        def run() -> None:
            with self._lock:
                if self._session is None:
                    raise WorkerError("the shard was unloaded while a step was on its way")
                compute()

        return replace(call, run=run)

    def close(self) -> None:
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.close()


@dataclass(frozen=True, slots=True)
class _Loaded:
    session: Session
    spec: ShardSpec


@dataclass(frozen=True, slots=True)
class _Chain:
    wiring: Wiring
    codecs: EpochCodecs
    link: Next | None = None
    pump: Pump | None = None
    stop: Event = field(default_factory=Event)
    done: Event = field(default_factory=Event)

    @property
    def ended(self) -> bool:
        return self.done.is_set()

    @property
    def wired(self) -> Wired:
        return Wired(
            address="" if self.link is None else self.link.address,
            codec=self.codecs.prefill.name,
            decode_codec=self.codecs.decode.name,
            refused_tables=self.codecs.refused_tables,
            refused_incoming_tables=self.codecs.refused_incoming_tables,
        )


def _held(spec: ShardSpec) -> ShardHeld:
    return ShardHeld(
        key=spec.key,
        graph_sha256=spec.graph.sha256,
        start=spec.start,
        stop=spec.stop,
        slots=spec.slots,
        context=spec.context,
    )


def _state(loaded: _Loaded | None, chain: _Chain | None) -> State:
    if loaded is None:
        return State.EMPTY
    if chain is None or chain.ended:
        return State.LOADED
    return State.WIRED if chain.pump is None else State.READY
