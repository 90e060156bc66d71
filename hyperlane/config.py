"""The typed configuration: every key of `conf/`, checked once, and the table of everything that is pluggable.

A group's `kind` picks a dataclass from `CHOICES`; that dataclass is both the schema of its YAML and the strategy
itself, so YAML cannot name arbitrary code. Nothing past this file sees an untyped value.
"""

import difflib
import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hyperlane.arguments import quote
from hyperlane.cluster.lab import Lab
from hyperlane.cluster.local import Local
from hyperlane.cluster.source import ClusterSource
from hyperlane.cluster.static import Static
from hyperlane.errors import ConfigError, HyperlaneError, one_line
from hyperlane.partition import Partition
from hyperlane.partition.knapsack import Knapsack
from hyperlane.partition.manual import Manual
from hyperlane.partition.uniform import Uniform
from hyperlane.quantization import Quantization
from hyperlane.quantization.int4 import Int4
from hyperlane.quantization.int8 import Int8
from hyperlane.quantization.none import NoQuantization
from hyperlane.transport.codec import CODEC_NAMES


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


@dataclass(kw_only=True, slots=True)
class Transport:
    codec: Codec = field(default_factory=Codec)
    native: bool = True
    queue_depth: int = 8
    max_frame_bytes: int = 268435456
    connect_timeout_s: float = 5.0
    step_timeout_s: float = 60.0


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
    prefill_chunk: int = 256
    stream: bool = True


@dataclass(kw_only=True, slots=True)
class Calibration:
    text: str | None = None  # a file; null takes the text that ships


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
    "cluster": {"local": Local, "lab": Lab, "static": Static},
    "partition": {"uniform": Uniform, "knapsack": Knapsack, "manual": Manual},
    "quantization": {"none": NoQuantization, "int8": Int8, "int4": Int4},
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
    generate: Generate
    security: Insecure
    choices: Mapping[str, str]  # group -> chosen kind
    sha256: str  # of the whole configuration but what only says where and how far to run

    def digest(self, keys: Sequence[str]) -> str:
        """SHA-256 (hex) of the values of some keys, given with their dots."""
        values = {key: functools.reduce(getattr, key.split("."), self) for key in keys}
        plain = {key: asdict(value) if is_dataclass(value) else value for key, value in values.items()}
        return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(kw_only=True, slots=True)
class _Root:
    """Schema of the keys outside of groups; the groups' schemas are put in by `_schema`."""

    name: str = "run"
    prompt: str | None = None
    prompts: list[str] = field(default_factory=list)
    prompts_file: str | None = None
    stages: list[str] = field(default_factory=list)
    run_dir: str | None = None
    store: Store = field(default_factory=Store)
    model: Model = field(default_factory=Model)
    cluster: Any = None
    partition: Any = None
    quantization: Any = None
    transport: Transport = field(default_factory=Transport)
    calibration: Calibration = field(default_factory=Calibration)
    generate: Generate = field(default_factory=Generate)
    security: Any = None


def conf_dir() -> Path:
    """The folder of YAML files: inside an installed package, or the checkout's."""
    packaged = Path(__file__).resolve().parent / "conf"
    return packaged if packaged.is_dir() else packaged.parent.parent / "conf"


def compose(source: str, overrides: Sequence[str]) -> Config:
    """A configuration from Python: `source` is a model config's name, or what model.source takes."""
    named = (conf_dir() / "model" / f"{source}.yaml").is_file()
    model = f"model={source}" if named else f"model.source={quote(source)}"
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            composed = hydra_compose("config", [model, "stages=[discover,plan,export,deploy]", *overrides])
    except (OmegaConfBaseException, HydraException) as error:
        raise ConfigError(explain(error)) from error
    return to_config(composed)


def to_config(composed: DictConfig) -> Config:
    """Check what Hydra composed against the schemas; ConfigError with the full key where it does not match."""
    try:
        plain = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
        names = {group: _choice(plain, group) for group in CHOICES}
        typed = OmegaConf.merge(_schema(names), _without_kinds(plain))
        root = cast(_Root, OmegaConf.to_object(typed))
        sha256 = fingerprint(plain, _WHOLE)
    except (OmegaConfBaseException, HydraException) as error:
        raise ConfigError(explain(error, composed)) from error
    config = Config(choices=names, sha256=sha256, **{key: getattr(root, key) for key in _Root.__slots__})
    _check(config)
    return config


_WHOLE = (
    "model",
    "cluster",
    "partition",
    "quantization",
    "transport",
    "calibration",
    "generate",
    "security",
    "prompt",
    "prompts",
)
_DEPLOYED = ("model", "cluster", "partition", "quantization", "transport", "calibration")


def fingerprint(composed: DictConfig, keys: tuple[str, ...] = _DEPLOYED) -> str:
    """SHA-256 (hex) of some of a configuration's keys; by default of what is deployed, and the seed."""
    kept = {
        key: OmegaConf.to_container(composed[key], resolve=True) if _is_node(composed, key) else composed[key]
        for key in keys
    }
    kept["seed"] = composed.generate.seed
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


def run_folder(composed: DictConfig, moment: str) -> str:
    """hydra.run.dir: the run to continue, or a new folder `outputs/<name>-<fingerprint>/<time>`."""
    if composed.get("run_dir"):
        return str(composed.run_dir)
    return f"outputs/{composed.name}-{fingerprint(composed)[:8]}/{moment}"


def job_folder(composed: DictConfig, moment: str, job: int | str) -> str:
    """hydra.sweep.subdir: jobs of a sweep stand with the other runs of their deployment."""
    return f"../../{composed.name}-{fingerprint(composed)[:8]}/{moment}-{job}"


def saved_overrides(folder: Path) -> list[str]:
    """The overrides that an earlier run was started with."""
    path = folder / ".hydra" / "overrides.yaml"
    if not path.is_file():
        raise ConfigError(f"run_dir={folder} is not the folder of a run; the last line of a run prints its folder")
    try:
        return [str(word) for word in OmegaConf.load(path)]
    except (OmegaConfBaseException, OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {one_line(error)}") from error


def parse_value(key: str, text: str) -> object:
    """`text` as Hydra's grammar reads the value of an override."""
    try:
        value = OverridesParser.create().parse_override(f"{key}={text}").value()
    except HydraException as error:
        raise ConfigError(f"{key}={text} is no value: {one_line(error)}") from error
    return value


def explain(error: Exception, composed: DictConfig | None = None) -> str:
    """A configuration error of Hydra or OmegaConf as one line, with the full key and the nearest name."""
    cause = error.__cause__ if isinstance(error.__cause__, (OmegaConfBaseException, HydraException)) else None
    lines = [line for line in str(cause or error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    unknown = re.search(r"Could not override '([^']+)'", str(error)) or re.search(r"Key '([^']+)' not in", text)
    if unknown:
        key = getattr(cause or error, "full_key", None) or unknown[1]
        key = unknown[1] if unknown[1].endswith(str(key)) else str(key)
        return f"unknown key {key}{_nearest(key, _known_keys(composed))}"
    unread = next((e for e in (error, error.__cause__) if isinstance(e, OverrideParseException)), None)
    if unread is not None:
        return f"cannot read {unread.override!r}; write key=value, with quotes around commas, brackets and braces"
    missing = re.search(r"Could not find '([^']+)'", str(error))
    if missing:
        return _unknown_option(missing[1])
    key = getattr(cause or error, "full_key", None)
    return f"{key}: {text}" if key and key not in text else text


def _unknown_option(path: str) -> str:
    group, _, option = path.rpartition("/")
    if path.startswith("model/"):
        group, _, option = path.partition("/")
    known = sorted(file.stem for file in (conf_dir() / group).glob("*.yaml"))
    hint = f"; a folder or a Hub name goes in model.source={option}" if group == "model" else ""
    return f"unknown {group or 'config'} {option}{_nearest(option, known)}; there are {', '.join(known)}{hint}"


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def _known_keys(composed: DictConfig | None) -> list[str]:
    schemas = [OmegaConf.structured(_Root)]
    schemas += [
        OmegaConf.create({group: OmegaConf.structured(cls)})
        for group, table in CHOICES.items()
        for cls in table.values()
    ]
    keys: set[str] = set()
    for schema in schemas:
        keys.update(_flatten(schema, ""))
    return sorted(keys)


def _flatten(node: DictConfig, prefix: str) -> list[str]:
    keys = []
    for key in node:
        full = f"{prefix}{key!s}"
        keys.append(full)
        child = None if OmegaConf.is_missing(node, key) else node[key]
        if isinstance(child, DictConfig):
            keys += _flatten(child, full + ".")
    return keys


def _choice(plain: DictConfig, group: str) -> str:
    node = plain.get(group)
    kind = node.get("kind") if isinstance(node, DictConfig) else None
    if kind not in CHOICES[group]:
        known = sorted(CHOICES[group])
        raise ConfigError(f"unknown {group}.kind {kind}{_nearest(str(kind), known)}; there are {', '.join(known)}")
    return str(kind)


def _schema(names: Mapping[str, str]) -> DictConfig:
    schema = OmegaConf.structured(_Root)
    for group, name in names.items():
        schema[group] = OmegaConf.structured(CHOICES[group][name])
    return cast(DictConfig, schema)


def _without_kinds(plain: DictConfig) -> DictConfig:
    copy = plain.copy()
    OmegaConf.set_struct(copy, False)
    for group in CHOICES:
        copy[group] = {key: value for key, value in copy[group].items_ex(resolve=False) if key != "kind"}
    copy.pop("experiment", None)
    return copy


def _is_node(composed: DictConfig, key: str) -> bool:
    return OmegaConf.is_config(composed.get(key))


def _check(config: Config) -> None:
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
    block_size = getattr(config.quantization, "block_size", 32)
    powers = (16, 32, 64, 128, 256)
    _require(block_size in powers, "quantization.block_size", block_size, "16, 32, 64, 128 or 256")
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
    _require(1 <= generate.prefill_chunk <= 65535, "generate.prefill_chunk", generate.prefill_chunk, "1 to 65535")


def _require(holds: bool, key: str, value: object, wanted: str) -> None:
    if not holds:
        raise ConfigError(f"{key}={value} is out of range; give {wanted}")


__all__ = [
    "CHOICES",
    "Config",
    "ConfigError",
    "HyperlaneError",
    "conf_dir",
    "explain",
    "fingerprint",
    "to_config",
]
