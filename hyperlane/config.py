"""The typed configuration: every key of `conf/`, checked once, and the table of everything that is pluggable.

A group's `kind` picks a dataclass from `CHOICES`; that dataclass is both the schema of its YAML and the strategy
itself, so YAML cannot name arbitrary code. `compose` fills these from Hydra; nothing past it sees an untyped value.
"""

import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from hyperlane.cluster.lab import Lab
from hyperlane.cluster.local import Local
from hyperlane.cluster.simulated import Simulated
from hyperlane.cluster.source import ClusterSource
from hyperlane.cluster.static import Static
from hyperlane.errors import ConfigError
from hyperlane.partition import Partition
from hyperlane.partition.balanced import Balanced
from hyperlane.partition.knapsack import Knapsack
from hyperlane.partition.manual import Manual
from hyperlane.partition.optimal import Optimal
from hyperlane.partition.uniform import Uniform
from hyperlane.quantization import Quantization
from hyperlane.quantization.auto import Auto
from hyperlane.quantization.int4 import Int4
from hyperlane.quantization.int8 import Int8
from hyperlane.quantization.none import NoQuantization
from hyperlane.quantization.source import Source
from hyperlane.transport.codec import CODEC_NAMES


class Measure(Enum):
    """Whether discover times workers and links; auto: where the plan depends on it."""

    auto = "auto"
    always = "always"
    never = "never"


class Goal(Enum):
    """What a tuning sweep minimizes, in seconds."""

    token_s = "token_s"  # a token, of all requests together: from the start to the last token
    step_s = "step_s"  # from one token of a request to its next, the median
    ttft_s = "ttft_s"  # to a request's first token, the median


class Replanning(Enum):
    """What a worker that is slower than predicted leads to."""

    off = "off"
    offer = "offer"  # a line after the run
    move = "move"  # layers go to other workers while requests live


class Dtype(Enum):
    float32 = "float32"
    float16 = "float16"


@dataclass(kw_only=True, slots=True)
class Model:
    source: str = MISSING  # a folder, a .gguf file, package:NAME/FILE, a hub name, or "random"
    revision: str | None = None
    dtype: Dtype = Dtype.float32
    architecture: dict[str, Any] = field(default_factory=dict)  # of source=random: the fields of an HF config
    seed: int = 0  # of source=random


@dataclass(kw_only=True, slots=True)
class Codec:
    name: str = MISSING


class Shortcut(Enum):
    """Whether hidden states may pass from GPU to GPU of one host; auto: where both ends can."""

    auto = "auto"
    off = "off"


@dataclass(kw_only=True, slots=True)
class Transport:
    codec: Codec = field(default_factory=Codec)
    shortcut: Shortcut = Shortcut.auto
    native: bool = True
    queue_depth: int = 8
    max_frame_bytes: int = 268435456
    connect_timeout_s: float = 5.0
    step_timeout_s: float = 60.0


class KvCache(Enum):
    """Numbers in the caches of workers with our own attention; auto: FP32 for weights as they are, else FP16."""

    auto = "auto"
    float32 = "float32"
    float16 = "float16"
    int8 = "int8"


class Speculate(Enum):
    off = "off"
    ngram = "ngram"
    model = "model"


@dataclass(kw_only=True, slots=True)
class Generate:
    max_new_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 50
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    stop: list[str] = field(default_factory=list)
    ignore_eos: bool = False
    raw_prompt: bool = False
    system: str | None = None
    context: int = 2048
    slots: int = 4
    lanes: int = 0
    kv_cache: KvCache = KvCache.auto
    prefill_chunk: int = 256
    queue: int = 256
    prefix_cache: bool = True
    speculate: Speculate = Speculate.off
    draft_tokens: int = 31
    draft: str | None = None  # of speculate=model: a source as model.source
    stream: bool = True


@dataclass(kw_only=True, slots=True)
class Calibration:
    text: str | None = None  # a file; null takes the text that ships


@dataclass(kw_only=True, slots=True)
class SimulatedLoad:
    """What the stage `simulate` sends through the chains."""

    requests: int = 64
    rate_per_s: float = 0.0  # 0: all at once
    prompt_tokens: int = 256
    new_tokens: int = 128
    replicas: int = 1  # chains side by side; 0: as many as the workers hold
    seed: int = 0


@dataclass(kw_only=True, slots=True)
class Replan:
    """When a worker counts as slow, and what a new plan must save to be worth it."""

    mode: Replanning = Replanning.offer
    above: float = 1.5
    gain: float = 0.1
    after_s: float = 5.0
    pause_s: float = 60.0
    every_s: float = 1.0


@dataclass(kw_only=True, slots=True)
class Insecure:
    allow_lan: bool = False


@dataclass(kw_only=True, slots=True)
class Store:
    root: str = "~/.cache/hyperlane"

    @property
    def path(self) -> Path:
        return Path(self.root).expanduser()


CHOICES: Mapping[str, Mapping[str, type]] = {
    "cluster": {"local": Local, "lab": Lab, "static": Static, "simulated": Simulated},
    "partition": {"balanced": Balanced, "uniform": Uniform, "knapsack": Knapsack, "manual": Manual, "optimal": Optimal},
    "quantization": {"none": NoQuantization, "source": Source, "int8": Int8, "int4": Int4, "auto": Auto},
    "security": {"insecure": Insecure},
}
"""Everything pluggable: group -> the `kind` in its YAML -> its dataclass. Codecs are listed in `transport.codec`."""


@dataclass(kw_only=True, slots=True)
class Config:
    name: str
    prompt: str | None
    prompts: list[str]
    prompts_file: str | None
    stages: list[str]
    run_dir: str | None
    store: Store
    model: Model
    cluster: ClusterSource
    partition: Partition
    quantization: Quantization
    transport: Transport
    calibration: Calibration
    measure: Measure
    explain: bool
    learn: bool
    replan: Replan
    minimize: Goal
    simulate: SimulatedLoad
    generate: Generate
    security: Insecure
    choices: Mapping[str, str]  # group -> chosen kind
    sha256: str  # of the whole configuration but what only says where and how far to run

    def digest(self, keys: Sequence[str]) -> str:
        """SHA-256 (hex) of the values of some keys, given with their dots."""
        values = {key: functools.reduce(getattr, key.split("."), self) for key in keys}
        plain = {key: asdict(value) if is_dataclass(value) else value for key, value in values.items()}
        return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()


def check(config: Config) -> None:
    """Ranges that types cannot say."""
    transport = config.transport
    check_generate(config.generate)
    _require(
        transport.codec.name in (*CODEC_NAMES, "auto"),
        "transport.codec.name",
        transport.codec.name,
        f"one of {', '.join(CODEC_NAMES)}, auto",
    )
    _require(transport.queue_depth >= 1, "transport.queue_depth", transport.queue_depth, "1 or more")
    _require(
        transport.max_frame_bytes >= 4096,
        "transport.max_frame_bytes",
        transport.max_frame_bytes,
        "4096 or more",
    )
    _require(
        transport.connect_timeout_s > 0,
        "transport.connect_timeout_s",
        transport.connect_timeout_s,
        "more than 0",
    )
    _require(transport.step_timeout_s > 0, "transport.step_timeout_s", transport.step_timeout_s, "more than 0")
    replan = config.replan
    _require(replan.above > 1, "replan.above", replan.above, "more than 1")
    _require(0 <= replan.gain < 1, "replan.gain", replan.gain, "0 to less than 1")
    _require(replan.after_s >= 0, "replan.after_s", replan.after_s, "0 or more")
    _require(replan.pause_s >= 0, "replan.pause_s", replan.pause_s, "0 or more")
    _require(replan.every_s > 0, "replan.every_s", replan.every_s, "more than 0")
    load = config.simulate
    _require(load.requests >= 1, "simulate.requests", load.requests, "1 or more")
    _require(load.rate_per_s >= 0, "simulate.rate_per_s", load.rate_per_s, "0 (all at once) or more")
    _require(load.prompt_tokens >= 1, "simulate.prompt_tokens", load.prompt_tokens, "1 or more")
    _require(load.new_tokens >= 1, "simulate.new_tokens", load.new_tokens, "1 or more")
    _require(load.replicas >= 0, "simulate.replicas", load.replicas, "0 (as many as there is room for) or more")
    _require(bool(config.stages), "stages", config.stages, "one or more, as in stages=[discover,plan]")
    _require(bool(re.fullmatch(r"[\w.-]+", config.name)), "name", config.name, "letters, digits, '.', '_' and '-'")


def check_generate(generate: Generate) -> None:
    """Raise ConfigError for a setting of `generate.*` that is out of range."""
    _require(generate.max_new_tokens >= 1, "generate.max_new_tokens", generate.max_new_tokens, "1 or more")
    _require(generate.temperature >= 0, "generate.temperature", generate.temperature, "0 (greedy) or more")
    _require(generate.top_k >= 0, "generate.top_k", generate.top_k, "0 (all tokens) or more")
    _require(0 < generate.top_p <= 1, "generate.top_p", generate.top_p, "more than 0 and at most 1")
    _require(0 <= generate.min_p <= 1, "generate.min_p", generate.min_p, "0 to 1")
    _require(
        generate.repetition_penalty > 0,
        "generate.repetition_penalty",
        generate.repetition_penalty,
        "more than 0",
    )
    _require(0 <= generate.seed < 2**63, "generate.seed", generate.seed, "0 or more")
    _require(generate.context >= 2, "generate.context", generate.context, "2 or more")
    _require(1 <= generate.slots <= 65535, "generate.slots", generate.slots, "1 to 65535")
    _require(generate.lanes >= 0, "generate.lanes", generate.lanes, "0 (one a worker) or more")
    _require(generate.queue >= 1, "generate.queue", generate.queue, "1 or more")
    _require(1 <= generate.draft_tokens <= 65534, "generate.draft_tokens", generate.draft_tokens, "1 to 65534")
    _require(
        generate.speculate is not Speculate.model or generate.draft is not None,
        "generate.draft",
        generate.draft,
        "the source of a small model with the same tokenizer, or generate.speculate=ngram",
    )
    _require(1 <= generate.prefill_chunk <= 65535, "generate.prefill_chunk", generate.prefill_chunk, "1 to 65535")


def _require(holds: bool, key: str, value: object, wanted: str) -> None:
    if not holds:
        raise ConfigError(f"{key}={value} is out of range; give {wanted}")
