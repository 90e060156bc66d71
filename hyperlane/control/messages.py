"""Between protobuf messages and the plain types of control/types.py."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlane.artifacts import Blob
from hyperlane.control import worker_pb2 as pb
from hyperlane.control.types import (
    CodecTables,
    CodecTime,
    ComputeSpeed,
    LinkCounters,
    LinkSpeed,
    PathSpeed,
    Probe,
    ShardHeld,
    ShardSpec,
    State,
    StepCase,
    Wired,
    Wiring,
    WorkerStats,
)
from hyperlane.timeline.record import Records, StepRecord


def stats_to_message(stats: WorkerStats) -> Any:
    message = pb.Stats(
        **_scalars(stats, "shard", "links", "state"),
        state=stats.state.name,
        links=[pb.LinkCounters(**_scalars(link)) for link in stats.links],
    )
    if stats.shard is not None:
        message.shard.CopyFrom(pb.ShardHeld(**_scalars(stats.shard)))
    return message


def stats_from_message(message: Any) -> WorkerStats:
    return WorkerStats(
        **_fields(message, WorkerStats, "shard", "links", "state", "hosts", "rejected"),
        hosts=tuple(message.hosts),
        state=State(message.state),
        shard=ShardHeld(**_fields(message.shard, ShardHeld)) if message.HasField("shard") else None,
        links=tuple(LinkCounters(**_fields(link, LinkCounters)) for link in message.links),
        rejected=tuple(message.rejected),
    )


def header_to_message(spec: ShardSpec) -> Any:
    return pb.ShardHeader(
        **_scalars(spec, "graph", "weights"),
        graph=_file(spec.graph),
        weights=[_file(blob) for blob in spec.weights],
    )


def header_from_message(message: Any) -> ShardSpec:
    return ShardSpec(
        **_fields(message, ShardSpec, "graph", "weights"),
        graph=_blob(message.graph),
        weights=tuple(_blob(file) for file in message.weights),
    )


def wiring_to_message(wiring: Wiring) -> Any:
    return pb.SetNextWorkerRequest(
        **_scalars(wiring, "control_address", *_TABLES),
        control_address=wiring.control_address or "",
        tables=_tables_to_message(wiring.tables),
        incoming_tables=_tables_to_message(wiring.incoming_tables),
    )


def wiring_from_message(message: Any) -> Wiring:
    return Wiring(
        **_fields(message, Wiring, "data_addresses", "control_address", *_TABLES),
        data_addresses=tuple(message.data_addresses),
        control_address=message.control_address or None,
        tables=_tables_from_message(message, "tables"),
        incoming_tables=_tables_from_message(message, "incoming_tables"),
    )


def wired_to_message(wired: Wired) -> Any:
    return pb.SetNextWorkerReply(**_scalars(wired))


def wired_from_message(message: Any) -> Wired:
    return Wired(**_fields(message, Wired))


def speed_to_message(speed: LinkSpeed) -> Any:
    times = [pb.CodecTime(**_scalars(time)) for time in speed.times]
    return pb.MeasureLinkReply(**_scalars(speed, "times"), times=times)


def speed_from_message(message: Any) -> LinkSpeed:
    times = tuple(CodecTime(**_fields(time, CodecTime)) for time in message.times)
    return LinkSpeed(**_fields(message, LinkSpeed, "times"), times=times)


def records_to_message(records: Records) -> Any:
    return pb.Records(now_ns=records.now_ns, steps=[pb.StepRecord(**step._asdict()) for step in records.steps])


def records_from_message(message: Any) -> Records:
    steps = tuple(StepRecord(*(getattr(step, name) for name in StepRecord._fields)) for step in message.steps)
    return Records(message.now_ns, steps)


def probe_to_message(probe: Probe) -> Any:
    return pb.MeasureComputeRequest(
        **_scalars(probe, "weights", "cases"),
        weights=[_file(blob) for blob in probe.weights],
        cases=[pb.StepCase(**_scalars(case)) for case in probe.cases],
    )


def probe_from_message(message: Any) -> Probe:
    return Probe(
        **_fields(message, Probe, "weights", "cases", "codecs", "codec_rows"),
        weights=tuple(_blob(file) for file in message.weights),
        cases=tuple(StepCase(**_fields(case, StepCase)) for case in message.cases),
        codecs=tuple(message.codecs),
        codec_rows=tuple(message.codec_rows),
    )


def compute_to_message(speed: ComputeSpeed) -> Any:
    codecs = [pb.CodecTime(**_scalars(time)) for time in speed.codecs]
    return pb.MeasureComputeReply(**_scalars(speed, "codecs"), codecs=codecs)


def compute_from_message(message: Any) -> ComputeSpeed:
    return ComputeSpeed(
        **_fields(message, ComputeSpeed, "seconds", "codecs"),
        seconds=tuple(message.seconds),
        codecs=tuple(CodecTime(**_fields(time, CodecTime)) for time in message.codecs),
    )


def path_from_message(message: Any) -> PathSpeed:
    return PathSpeed(**_fields(message, PathSpeed))


def files_to_message(blobs: Iterable[Blob]) -> Any:
    return pb.HasLayersRequest(files=[_file(blob) for blob in blobs])


def files_from_message(message: Any) -> tuple[Blob, ...]:
    return tuple(_blob(file) for file in message.files)


def tensor_to_message(array: NDArray[Any]) -> Any:
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return pb.Tensor(dtype=array.dtype.name, shape=array.shape, data=little.tobytes())


def tensor_from_message(message: Any) -> NDArray[Any]:
    """Raises ValueError where dtype, shape and data do not agree."""
    if message.dtype not in ("float32", "float16"):
        raise ValueError(f"a tensor has dtype {message.dtype!r}; only float32 and float16 travel")
    flat = np.frombuffer(message.data, np.dtype(message.dtype).newbyteorder("<"))
    return flat.reshape(tuple(message.shape))


_TABLES = ("tables", "incoming_tables")


def _tables_to_message(tables: CodecTables | None) -> Any:
    return None if tables is None else pb.CodecTables(**_scalars(tables))


def _tables_from_message(message: Any, name: str) -> CodecTables | None:
    return CodecTables(**_fields(getattr(message, name), CodecTables)) if message.HasField(name) else None


def _file(blob: Blob) -> Any:
    return pb.File(sha256=blob.sha256, bytes=blob.bytes)


def _blob(message: Any) -> Blob:
    return Blob(sha256=message.sha256, bytes=message.bytes)


def _scalars(value: Any, *left_out: str) -> dict[str, Any]:
    """The fields of a dataclass, by name; the messages use the same names."""
    return {name: getattr(value, name) for name in value.__slots__ if name not in left_out}


def _fields(message: Any, kind: Any, *left_out: str) -> dict[str, Any]:
    return {name: getattr(message, name) for name in kind.__slots__ if name not in left_out}
