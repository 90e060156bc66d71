"""What the deploy stage leaves: shards on workers, and what crosses their boundaries."""

from dataclasses import dataclass, field

from hyperlane.artifacts.manifest import Blob
from hyperlane.artifacts.written import MEASURED, measured


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
    tables: Blob | None = field(default=None, metadata=MEASURED)
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
    gpu_weights: GpuWeights | None = field(default=None, metadata=MEASURED)  # quantization=auto, with GPUs
    slots: int
    context: int
    hidden_size: int
    vocab_size: int
    dtype: str

    @property
    def ragged(self) -> bool:
        """Whether every worker computes any step in one call."""
        return all(shard.ragged for shard in self.shards)
