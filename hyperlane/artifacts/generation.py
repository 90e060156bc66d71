"""What the generate stage tells: texts, links, times, moves."""

from dataclasses import dataclass, field

from hyperlane.artifacts.written import MEASURED, measured


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
    accuracy: Accuracy | None = field(default=None, metadata=MEASURED)  # where the plan's figures were measured
    moves: tuple[Move, ...] = measured(default=())
