"""The parts of a worker that runs: ONNX session, data links, pump, gRPC relay."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hyperlane.control.client import ControlClient
from hyperlane.control.types import ShardSpec, Wiring
from hyperlane.errors import TransportError
from hyperlane.transport.link import Receiver, Sender, connect
from hyperlane.worker.codecs import EpochCodecs
from hyperlane.worker.cuda_ring import CudaLanding, open_shortcut
from hyperlane.worker.device_path import DevicePath
from hyperlane.worker.gpu import Gpu
from hyperlane.worker.measure import measure_link
from hyperlane.worker.options import QUEUE_DEPTH, Options
from hyperlane.worker.parts import Parts, Session
from hyperlane.worker.profile import measure
from hyperlane.worker.pump import Pump

CONNECT_TIMEOUT_S = 5.0
MAX_FRAME_BYTES = 256 << 20

log = logging.getLogger(__name__)


def live_parts(
    options: Options,
    receiver: Receiver,
    identity: str,
    name: Callable[[], str],
    spawn: Callable[[Callable[[], None]], None],
) -> Parts:
    """`identity` is the data port's; `name` gives the worker's present name; `spawn` runs a pump in its own thread."""
    device = _OnGpu(options, identity) if options.device.startswith("cuda") else None

    def open_session(graph: Path, spec: ShardSpec) -> Session:
        # Imported here: a worker is ready before ONNX Runtime is.
        from hyperlane.worker import session

        return session.Session(
            graph,
            slots=spec.slots,
            context=spec.context,
            threads=options.threads,
            device=options.device,
            spinning=options.spinning,
            free_bytes=measure(options.device).free_bytes,
            graphs=not options.no_cuda_graphs,
        )

    def connect_next(wiring: Wiring) -> Sender:
        return connect(wiring.data_addresses, wiring.identity, timeout_s=CONNECT_TIMEOUT_S, queue_depth=QUEUE_DEPTH)

    def open_pump(session: Session, sender: Sender, wiring: Wiring, codecs: EpochCodecs, spec: ShardSpec) -> Pump:
        pump = Pump(
            receiver=receiver,
            session=session,
            sender=sender,
            wiring=wiring,
            codecs=codecs,
            worker=name(),
            dtype=spec.dtype,
            overlap=options.overlaps,
        )
        if device is not None:
            device.equip(pump, wiring, codecs, spec)
        return pump

    return Parts(
        open_session=open_session,
        connect=connect_next,
        open_pump=open_pump,
        measure_link=measure_link,
        open_relay=lambda address: ControlClient(address, "next in the chain"),
        spawn=spawn,
    )


class _OnGpu:
    """What pumps of a worker with a GPU have more: decoding and encoding there, and shortcuts."""

    def __init__(self, options: Options, identity: str) -> None:
        self._index, self._depth = int(options.device.partition(":")[2] or 0), options.pinned_frames
        self._identity = identity
        self._landing: CudaLanding | None = None

    def equip(self, pump: Pump, wiring: Wiring, codecs: EpochCodecs, spec: ShardSpec) -> None:
        gpu = Gpu(self._index)
        pump.device = DevicePath(gpu, codecs.incoming, spec.dtype, self._depth)
        pump.landing = self._landed(gpu, spec)
        if wiring.shortcut:
            pump.shortcut = open_shortcut(gpu, wiring.identity, spec.dtype)

    def _landed(self, gpu: Gpu, spec: ShardSpec) -> CudaLanding | None:
        """Open from the first wiring on; the worker before knocks once it is wired, which is later."""
        if self._landing is None:
            try:
                self._landing = CudaLanding(gpu, self._identity, self._depth)
            except TransportError as error:
                log.info("no shortcuts to this worker: %s", error)
                return None
        self._landing.dtype = np.dtype(spec.dtype)
        return self._landing
