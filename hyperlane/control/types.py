"""What the control plane says, as plain data: control/messages.py turns it into protobuf and back."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from numpy.typing import NDArray

from hyperlane.artifacts import Blob
from hyperlane.transport.frame import Run


class State(Enum):
    """How far a worker is; the values are those of worker.proto."""

    EMPTY = 0
    LOADED = 1
    WIRED = 2
    READY = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSpec:
    """The shard that a worker is asked to load: its files by content, and room for keys and values."""

    key: str  # of the deployment
    graph: Blob
    weights: tuple[Blob, ...]
    start: int
    stop: int
    first: bool  # takes token ids
    last: bool  # gives candidates
    slots: int
    context: int
    dtype: str  # of hidden states: "float32" or "float16"

    @property
    def files(self) -> tuple[Blob, ...]:
        return (self.graph, *self.weights)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardHeld:
    """The shard that a worker holds."""

    key: str
    graph_sha256: str
    start: int
    stop: int
    slots: int
    context: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """Where a worker sends its steps during one epoch. The coordinator has no control address."""

    epoch: int
    identity: str
    data_addresses: tuple[str, ...]
    control_address: str | None
    codec: str
    decode_codec: str = ""  # of steps with one token a sequence; empty: `codec` too
    tables: "CodecTables | None" = None  # of the link to the next worker
    incoming_tables: "CodecTables | None" = None  # of the link from the worker before
    graph_sha256: str = ""  # the shard that the worker must hold; empty: any
    shortcut: bool = False  # pass hidden states from device to device where both ends can


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecTables:
    """The bytes of codec tables, and the digest that they must have."""

    sha256: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Wired:
    """What a worker made of its wiring: it sends raw rows where it cannot use the tables."""

    address: str  # the data address that was connected; empty without one
    codec: str
    decode_codec: str
    refused_tables: str = ""  # why
    refused_incoming_tables: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecTime:
    """How long one frame of so many rows takes."""

    codec: str
    rows: int
    encode_s: float
    decode_s: float
    payload_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSpeed:
    """What a worker measured: its link to the next worker (0 where none follows), and its codecs."""

    bytes_per_s: float
    latency_s: float  # one way
    times: tuple[CodecTime, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCase:
    """A step to time: `decode` of so many sequences, or `prefill` of so many tokens of one."""

    phase: str
    rows: int
    past: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A graph to time steps on, whose weights are made up by the worker, and codecs to time beside it."""

    graph: bytes
    weights: tuple[Blob, ...]
    last: bool
    dtype: str
    width: int
    context: int
    cases: tuple[StepCase, ...]
    codecs: tuple[str, ...] = ()
    codec_rows: tuple[int, ...] = ()
    at_once: int = 1  # so many run at the same time, and one of them is timed


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeSpeed:
    """What a worker measured of itself."""

    seconds: tuple[float, ...]  # by case
    codecs: tuple[CodecTime, ...]
    share: float  # of its threads' time that a CPU quota leaves
    machine: str
    cores: int
    threads: int
    load: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PathSpeed:
    """The path from one worker to another."""

    bytes_per_s: float
    latency_s: float
    burst_bytes: float  # that pass at once where nothing was sent for a while


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkCounters:
    """What went over one outgoing link; `fp16_bytes` is what the same rows take as FP16."""

    target: str
    codec: str
    frames: int
    wire_bytes: int
    fp16_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStats:
    """What a worker says about itself."""

    name: str
    identity: str  # what its data port greets with
    cluster: str
    protocol_version: int
    device: str
    memory_total_bytes: int
    memory_free_bytes: int
    memory_used_bytes: int
    hosts: tuple[str, ...]
    control_port: int
    data_port: int
    operators: int  # version of the operators of csrc/ops, 0 without
    state: State
    shard: ShardHeld | None
    epoch: int
    failure: str
    links: tuple[LinkCounters, ...]
    rejected: tuple[str, ...]
    received_bytes: int  # of all frames that the data port took in


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a LoadShard did."""

    loaded: bool  # False: the worker already held exactly this shard
    sent_files: int
    sent_bytes: int
    load_s: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """One pass through the chain as ExecutePipeline carries it; exactly one of the payload fields is set."""

    epoch: int
    lane: int
    step: int
    flags: int
    runs: tuple[Run, ...]
    tokens_R: NDArray[Any] | None = None  # int32
    hidden_RD: NDArray[Any] | None = None  # float32 or float16
    candidates: "Candidates | None" = None
    logits_NV: NDArray[Any] | None = None  # float32
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """The top K of each wanted row, with the row's logsumexp over the whole vocabulary."""

    ids_NK: NDArray[Any]  # int32
    logits_NK: NDArray[Any]  # float32
    logsumexp_N: NDArray[Any]  # float32
