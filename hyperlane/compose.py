"""From Hydra's composed YAML to a typed `Config`, and from Hydra's errors to one line.

With `command` and `sweep`, all that knows Hydra and OmegaConf.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hyperlane.arguments import quote
from hyperlane.config import (
    CHOICES,
    Calibration,
    Config,
    Generate,
    Goal,
    Measure,
    Model,
    Replan,
    SimulatedLoad,
    Store,
    Transport,
    check,
)
from hyperlane.errors import ConfigError, one_line


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
    measure: Measure = Measure.auto
    explain: bool = False
    learn: bool = True
    replan: Replan = field(default_factory=Replan)
    minimize: Goal = Goal.token_s
    simulate: SimulatedLoad = field(default_factory=SimulatedLoad)
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


def register_resolvers() -> None:
    """What the folders' names in conf/config.yaml are made with."""

    def run_resolver(moment: str, *, _root_: DictConfig) -> str:
        return run_folder(_root_, moment)

    def job_resolver(moment: str, job: int | str, *, _root_: DictConfig) -> str:
        return job_folder(_root_, moment, job)

    OmegaConf.register_new_resolver("hyperlane_run_dir", run_resolver, replace=True)
    OmegaConf.register_new_resolver("hyperlane_job_dir", job_resolver, replace=True)


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
    check(config)
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
        # Not resolved: ${...} in a prompt is text.
        return [str(word) for word in cast(list[object], OmegaConf.to_container(OmegaConf.load(path)))]
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
        known = _known_keys(composed)
        if key in known:  # of another choice of its group
            group = key.partition(".")[0]
            return f"{key} is no key of the {group} that is chosen; choose another by {group}=NAME"
        return f"unknown key {key}{_nearest(key, known)}"
    unread = next((e for e in (error, error.__cause__) if isinstance(e, OverrideParseException)), None)
    if unread is not None:
        return f"cannot read {unread.override!r}; write key=value, with quotes around commas, brackets and braces"
    missing = re.search(r"Could not find '([^']+)'", str(error))
    if missing:
        return _unknown_option(missing[1])
    key = getattr(cause or error, "full_key", None)
    if "is not a ListConfig" in text:
        return f"{key} takes a list; write '{key}=[a,b]'"
    group = re.search(r"Merge error: \w+ is not a subclass of (\w+)\. value: (.*)", text)
    if group:
        return f"{group[2]} is given for all of {group[1].lower()}; set one key of it, or choose a file by group=option"
    there = re.search(r"An item is already at '([^']+)'", text)
    if there:
        return f"{there[1]} is there already; leave out the + before it"
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
