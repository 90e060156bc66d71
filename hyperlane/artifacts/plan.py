"""What the plan stage decides and predicts, and what a simulation of it gives."""

from dataclasses import dataclass, field

from hyperlane.artifacts.deployment import Boundary
from hyperlane.artifacts.written import MEASURED, measured


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
    codecs: tuple[str, ...]  # asked for, one a hop between workers
    slots: int
    context: int
    predicted: Prediction | None = field(default=None, metadata=MEASURED)
    bound: float | None = measured(default=None)  # partition=optimal: no placement's objective is below it
    objective: float | None = measured(default=None)
    boundaries: tuple[Boundary, ...] = measured(default=())  # what deployment made of `codecs`


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
