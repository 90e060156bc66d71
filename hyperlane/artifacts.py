"""The frozen types that pass between stages: Cluster -> Plan -> Manifest -> Deployment -> Generation.

Each stage writes one of them to its run folder as JSON. A field marked `measured()` (a latency, free memory, a time)
is written too but stays out of the artifact's digest, so that the same config gives the same digests.
"""

import hashlib
import json
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, TypeVar

import cattrs
from cattrs.preconf.json import make_converter

T = TypeVar("T")

_MEASURED = {"measured": True}


def measured(**kwargs: Any) -> Any:
    """A dataclass field that varies from run to run and therefore stays out of digests."""
    return field(metadata=_MEASURED, **kwargs)


# --- discover ---------------------------------------------------------------------------------------------------

HANDOFF_S = 1.5e-4
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


# --- plan -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What planning needs to know of a model: sizes, no weights. Bytes are as stored with the run's quantization."""

    source: str
    family: str  # HF's model_type
    layers: int
    hidden_size: int
    vocab_size: int
    max_positions: int
    dtype: str  # "float32" or "float16": activations and KV
    embedding_bytes: int
    layer_bytes: tuple[int, ...]
    head_bytes: int  # final norm and output head
    kv_bytes_per_token: tuple[int, ...]  # by layer: keys and values of one position of one sequence
    quantization: str = "none"  # its name: how the weights are stored
    kv_bits: int = 32  # of the numbers in a cache
    layer_products: tuple[int, ...] = ()  # by layer: products of a row with weights
    head_products: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The half-open layer range of one worker, and the memory that it was counted at."""

    worker: str
    start: int
    stop: int
    weight_bytes: int
    kv_bytes: int
    activation_bytes: int

    @property
    def memory_bytes(self) -> int:
        return self.weight_bytes + self.kv_bytes + self.activation_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePrediction:
    """One worker's part of a step, and the link behind it, in seconds; at one row and at a full lane."""

    worker: str
    decode_s: float
    lane_s: float
    prefill_s: float  # of one chunk
    codec: str  # to the next worker; "" behind the last
    wire_s: float  # of a decode step: what encoding, the wire, its latency and decoding take
    link_latency_s: float
    link_bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a placement should do, by the figures measured (or assumed, where `measured` is false)."""

    measured: bool
    step_s: float  # one stream's token
    ttft_s: float  # of a prompt of `prompt_tokens` alone
    prompt_tokens: int
    lanes: int
    lane_rows: int
    tokens_per_s: float  # with all lanes full
    compute_s: float  # of `step_s`
    wire_s: float  # of `step_s`
    binds: str  # "compute", "wire" or "latency": what decides the tokens per second
    stages: tuple[StagePrediction, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which worker holds which layers, in chain order."""

    model: ModelSpec
    partition: str
    placements: tuple[Placement, ...]
    codecs: tuple[str, ...]  # one a hop between workers
    slots: int
    context: int
    predicted: Prediction | None = field(default=None, metadata=_MEASURED)
    bound: float | None = measured(default=None)  # partition=optimal: no placement's objective is below it
    objective: float | None = measured(default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaReport:
    """One chain of a simulation; `busy` is each worker's share of the time that it computed."""

    workers: tuple[str, ...]
    requests: int
    busy: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What a load would take: medians, and what 95 of 100 requests are not above."""

    requests: int
    seconds: float
    tokens_per_s: float
    ttft_s: float
    ttft_95_s: float
    token_s: float  # from one token of a request to its next
    token_95_s: float
    replicas: tuple[ReplicaReport, ...]


# --- export -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A file of a layer store, named by the SHA-256 of its content (hex)."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One exported piece of a model ("embedding", "layer.0" ..., "head"): its graph, and its weights."""

    name: str
    graph: Blob
    weights: Blob


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything of one model in the layer store, under one set of export options."""

    key: str  # digest of the weights' identity and the export options
    family: str
    dtype: str
    quantization: str
    layers: int
    hidden_size: int
    vocab_size: int
    parts: tuple[Part, ...]  # in chain order: embedding, layer.0 ... layer.N-1, head
    exported: int = measured(default=0)  # how many parts this run had to export; 0 when the store held all


# --- deploy -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """What one worker holds after deployment."""

    worker: str
    start: int
    stop: int
    digest: str  # of the assembled graph, which names its weight files
    ragged: bool = measured(default=False)  # it computes any step in one call
    control_address: str = measured()
    data_addresses: tuple[str, ...] = measured()
    loaded: bool = measured()  # False: the worker already held exactly this shard
    sent_files: int = measured()
    sent_bytes: int = measured()


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """How hidden states cross from one shard to the next, as the self-test left it.

    `codec` is the best that passed. With codec=auto a link may use a more exact one in either phase.
    """

    layer: int  # the last one before the link
    wanted: str
    codec: str
    refused: tuple[str, ...] = measured(default=())  # why better ones fell, one line each
    relative_error: float | None = measured(default=None)  # of a row with `codec`: mean of squared error by square
    tables: Blob | None = field(default=None, metadata=_MEASURED)
    prefill: str | None = measured(default=None)  # codec=auto's choice for steps of several tokens a sequence
    decode: str | None = measured(default=None)
    bytes_per_s: float | None = measured(default=None)  # of the link, where codec=auto measured it
    latency_s: float | None = measured(default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest:
    """What the codecs cost a whole chain, measured on `tokens` of a text; kept by content in the store."""

    key: str
    tokens: int
    boundaries: tuple[Boundary, ...]
    kl: float  # of the next token's distribution against raw, in nats


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsTime:
    """What a layer's decode step takes with weights stored so."""

    weights: str  # the quantization's name, or "float16"
    layer_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuWeights:
    """How the weights of the chain's GPUs are stored by quantization=auto, and what decided it."""

    chosen: str
    rows: int  # of the decode step that was timed
    past: int  # positions before it
    times: tuple[WeightsTime, ...] = ()  # on the slowest GPU; empty where it could not be timed


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """The shards of a chain, in chain order, and the boundaries between them."""

    key: str
    shards: tuple[Shard, ...]
    boundaries: tuple[Boundary, ...]
    kl: float | None = measured(default=None)  # of the chain against raw, where there was a self-test
    gpu_weights: GpuWeights | None = field(default=None, metadata=_MEASURED)  # quantization=auto, with GPUs
    slots: int
    context: int
    hidden_size: int
    vocab_size: int
    dtype: str

    @property
    def ragged(self) -> bool:
        """Whether every worker computes any step in one call."""
        return all(shard.ragged for shard in self.shards)


# --- generate ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedText:
    """One request's outcome."""

    prompt: str
    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    text: str
    finish_reason: str  # "stop" (end token or stop string) or "length"
    ttft_s: float = measured()
    decode_tokens_per_s: float = measured()
    cached_tokens: int = measured(default=0)  # of the prompt, that workers held from other requests
    drafted_tokens: int = measured(default=0)  # sent to be verified
    accepted_tokens: int = measured(default=0)  # of those, that were right


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkReport:
    """What one link carried during a run; `fp16_bytes` is what the same rows take as FP16, nothing else counted."""

    source: str
    target: str
    codec: str
    frames: int
    wire_bytes: int
    fp16_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """The mean times of one worker's steps of one phase."""

    phase: str  # "prefill" or "decode"
    steps: int
    rows: float
    compute_s: float
    encode_s: float
    wire_s: float  # from encoded here to arrived at the next
    decode_s: float
    queue_s: float  # from arrived to decode
    bubble_s: float  # nothing to do before the step


@dataclass(frozen=True, slots=True, kw_only=True)
class StageAccuracy:
    """One worker's mean step of one phase; the wire is from encoded here to arrived at the next."""

    worker: str
    phase: str
    steps: int
    compute_predicted_s: float
    compute_measured_s: float
    wire_predicted_s: float
    wire_measured_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """A run next to what its plan's figures say of its requests: medians of the requests, compute of a decode step."""

    requests: int
    step_predicted_s: float
    step_measured_s: float
    compute_predicted_s: float
    compute_measured_s: float
    ttft_predicted_s: float
    ttft_measured_s: float
    stages: tuple[StageAccuracy, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRange:
    name: str
    start: int
    stop: int
    busy: float | None = measured(default=None)  # share of the time that it computed
    times: tuple[StepTimes, ...] = measured(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Layers that moved while requests were alive; for `seconds` no token came."""

    reason: str
    workers: tuple[WorkerRange, ...]  # from then on
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """All requests of a run, the links they crossed, and who computed what at its end."""

    requests: tuple[GeneratedText, ...]
    links: tuple[LinkReport, ...] = measured()
    workers: tuple[WorkerRange, ...]
    accuracy: Accuracy | None = field(default=None, metadata=_MEASURED)  # where the plan's figures were measured
    moves: tuple[Move, ...] = measured(default=())


# --- JSON and digests -------------------------------------------------------------------------------------------

_CONVERTER = make_converter(forbid_extra_keys=True)


def to_json(artifact: object) -> str:
    """The artifact as indented JSON with a final newline."""
    return json.dumps(_CONVERTER.unstructure(artifact), indent=2, ensure_ascii=False) + "\n"


def from_json(kind: type[T], text: str) -> T:
    """Read an artifact back; raises ValueError where the text is not one of `kind`."""
    try:
        return _CONVERTER.structure(json.loads(text), kind)
    except (json.JSONDecodeError, cattrs.BaseValidationError) as error:
        raise ValueError(f"not a valid {kind.__name__}: {error}") from error


def digest(artifact: object) -> str:
    """SHA-256 (hex) of the artifact without its measured fields."""
    text = json.dumps(_stable(artifact), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _stable(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        kept = (f for f in fields(value) if f.metadata != _MEASURED)
        return {f.name: _stable(getattr(value, f.name)) for f in kept}
    if isinstance(value, (list, tuple)):
        return [_stable(item) for item in value]
    return value
