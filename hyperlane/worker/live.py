"""The parts of a worker that runs: ONNX session, data links, pump, gRPC relay."""

from collections.abc import Callable
from pathlib import Path

from hyperlane.control.client import ControlClient
from hyperlane.control.types import ShardSpec, Wiring
from hyperlane.transport.link import Receiver, Sender, connect
from hyperlane.worker.codecs import EpochCodecs
from hyperlane.worker.device_path import DevicePath
from hyperlane.worker.gpu import Gpu
from hyperlane.worker.measure import measure_link
from hyperlane.worker.options import QUEUE_DEPTH, Options
from hyperlane.worker.parts import Parts, Session
from hyperlane.worker.profile import measure
from hyperlane.worker.pump import Pump

CONNECT_TIMEOUT_S = 5.0
MAX_FRAME_BYTES = 256 << 20


def live_parts(
    options: Options,
    receiver: Receiver,
    name: Callable[[], str],
    spawn: Callable[[Callable[[], None]], None],
) -> Parts:
    """`name` gives the worker's present name; `spawn` runs a pump in a supervised thread."""

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

    def device_path(codecs: EpochCodecs, spec: ShardSpec) -> DevicePath | None:
        if not options.device.startswith("cuda"):
            return None
        gpu = Gpu(int(options.device.partition(":")[2] or 0))
        return DevicePath(gpu, codecs.incoming, spec.dtype, options.pinned_frames)

    def open_pump(session: Session, sender: Sender, wiring: Wiring, codecs: EpochCodecs, spec: ShardSpec) -> Pump:
        return Pump(
            receiver=receiver,
            session=session,
            sender=sender,
            wiring=wiring,
            codecs=codecs,
            worker=name(),
            dtype=spec.dtype,
            overlap=options.overlaps,
            device=device_path(codecs, spec),
        )

    return Parts(
        open_session=open_session,
        connect=connect_next,
        open_pump=open_pump,
        measure_link=measure_link,
        open_relay=lambda address: ControlClient(address, "next in the chain"),
        spawn=spawn,
    )
