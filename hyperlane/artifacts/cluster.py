"""What the discover stage finds: workers, their speeds and the links between them."""

from dataclasses import dataclass

from hyperlane.artifacts.written import measured

HANDOFF_S = 8e-5
"""From one process to the next besides the wire's own time: threads that wake, calls of the kernel."""
TURN_S = 2e-5
"""The coordinator's own, from a step's result to the next step of greedy streams; sampling takes some 2e-4 more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """What a step of one size takes: a layer of it, and the head where the step ends."""

    phase: str  # "decode": `rows` sequences, a token each; "prefill": `rows` tokens of one
    rows: int
    past: int  # positions that are there already
    layer_s: float
    head_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpeed:
    """How fast a worker computes with weights stored in one way. The sizes are those of the layer that was timed."""

    weights: str  # the quantization's name
    layer_bytes: int
    head_bytes: int
    kv_bytes_per_token: int
    step_s: float  # of any step, however many layers
    times: tuple[StepTime, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecSpeed:
    """What one frame of `rows` x `width` values takes to encode and to decode, and its payload."""

    codec: str
    rows: int
    width: int
    encode_s: float
    decode_s: float
    payload_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkInfo:
    """One direction between two workers, or between all workers of two sites."""

    source: str
    target: str
    latency_s: float  # one way
    bytes_per_s: float
    burst_bytes: float = 0.0  # that pass at once where nothing was sent for a while


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """One worker that answered, and the address that the coordinator will use for it."""

    name: str
    device: str  # "cpu" or "cuda:0"
    operators: int = 0  # version of its own ONNX operators; 0: its graphs must do without
    memory_total_bytes: int
    memory_free_bytes: int = measured()
    control_address: str = measured()  # host:port that answered fastest
    data_addresses: tuple[str, ...] = measured()  # every host:port of its data port, the preferred one first
    latency_s: float = measured()
    speeds: tuple[WorkerSpeed, ...] = measured(default=())  # empty where nothing was timed
    codecs: tuple[CodecSpeed, ...] = measured(default=())
    share: float = measured(default=1.0)  # of its compute threads' time that it may use for long (a CPU quota)
    load: float = measured(default=0.0)  # of its machine: processes that want to run, by core
    machine: str = measured(default="")  # workers of one machine share its cores
    cores: int = measured(default=0)
    threads: int = measured(default=1)
    site: str = measured(default="")  # links may be given by site
    crowded_decode: float = measured(default=1.0)  # how much longer while others of its machine compute
    crowded_prefill: float = measured(default=1.0)
    decode_factor: float = measured(default=1.0)  # what earlier runs took, of what `speeds` say
    prefill_factor: float = measured(default=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A worker that was seen but cannot be used, and why."""

    name: str
    address: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The usable workers, ordered by name, and those that were seen but rejected."""

    workers: tuple[WorkerInfo, ...]
    rejected: tuple[Rejected, ...] = measured(default=())
    links: tuple[LinkInfo, ...] = measured(default=())  # those that were timed
    handoff_s: float = measured(default=HANDOFF_S)
    turn_s: float = measured(default=TURN_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is wrong with a worker or a link, and what to do."""

    subject: str
    problem: str
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkup:
    findings: tuple[Finding, ...] = measured()
