"""Every file of conf/ composes into its schema, and what does not fit says which key."""

import itertools
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf

from hyperlane.compose import conf_dir, explain, fingerprint, to_config
from hyperlane.config import CHOICES, Config
from hyperlane.errors import ConfigError

GROUPS = (
    "model",
    "cluster",
    "partition",
    "quantization",
    "transport",
    "generate",
    "security",
    "transport/codec",
)
FILES = [(g, f.stem) for g in GROUPS for f in sorted((conf_dir() / g).glob("*.yaml"))]


@pytest.fixture(autouse=True)
def _resolvers() -> None:
    for name in ("hyperlane_run_dir", "hyperlane_job_dir"):
        OmegaConf.register_new_resolver(name, lambda *_: "outputs", replace=True)


def composed(*overrides: str) -> OmegaConf:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", list(overrides), return_hydra_config=True)


def config(*overrides: str) -> Config:
    return to_config(composed(*overrides))


@pytest.mark.parametrize(("group", "option"), FILES)
def test_every_file_composes(group: str, option: str) -> None:
    assert isinstance(config(f"{group}={option}"), Config)


@pytest.mark.parametrize("option", sorted(f.stem for f in (conf_dir() / "experiment").glob("*.yaml")))
def test_every_experiment_composes(option: str) -> None:
    assert isinstance(config(f"experiment={option}"), Config)


@pytest.mark.parametrize("group", CHOICES)
def test_every_choice_has_a_file_that_lists_each_of_its_keys(group: str) -> None:
    files = [OmegaConf.load(f) for f in (conf_dir() / group).glob("*.yaml")]
    by_kind = {f.kind: set(f) - {"kind"} for f in files}
    assert by_kind.keys() == CHOICES[group].keys()
    for kind, cls in CHOICES[group].items():
        assert by_kind[kind] == set(OmegaConf.structured(cls)), kind


def test_defaults_are_the_documented_ones() -> None:
    chosen = config()
    assert chosen.prompt == "What is AI?"
    assert chosen.cluster.workers == 2
    assert chosen.choices["partition"] == "balanced"
    assert chosen.stages == ["discover", "plan", "export", "deploy", "generate"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("generate.max_new_tokens=abc", r"generate.max_new_tokens: .*'abc'"),
        ("cluster.workers=[1]", "cluster.workers: "),
        ("+partition.reserv=1", r"unknown key partition.reserv; did you mean partition.reserve\?"),
        ("+nonsense=1", "unknown key nonsense"),
        ("stages=discover", r"stages takes a list; write 'stages=\[a,b\]'"),
        ("stages=[]", r"stages=\[\] is out of range"),
        ("transport.codec=int8", "int8 is given for all of codec"),
        ("partition.kind=knapsak", r"partition.kind knapsak; did you mean knapsack\?"),
        ("generate.top_p=0", "generate.top_p=0.0 is out of range"),
        ("generate.max_new_tokens=0", "generate.max_new_tokens=0 is out of range"),
        ("transport.codec.name=zip", "transport.codec.name=zip is out of range"),
        ("name=a/b", "name=a/b is out of range"),
        ("model.dtype=int3", "model.dtype: "),
    ],
)
def test_a_wrong_value_names_its_key(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(override)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "generate.max_new_tokns=3",
            "unknown key generate.max_new_tokns; did you mean generate.max_new_tokens?",
        ),
        ("partition=unifrm", "unknown partition unifrm; did you mean uniform?"),
        ("model=meta-llama/Llama-2-7b-hf", "model.source="),
        ("generate.stop=[a", "cannot read 'generate.stop=[a'"),
        ("nonsense", "cannot read 'nonsense'"),
    ],
)
def test_hydras_own_errors_become_one_line(override: str, said: str) -> None:
    with pytest.raises(HydraException) as caught:
        composed(override)
    text = explain(caught.value)
    assert said in text
    assert "\n" not in text


def test_the_fingerprint_is_of_what_is_deployed() -> None:
    base = fingerprint(composed())
    for override in ("prompt=hello", "generate.temperature=1", "name=other", "stages=[plan]"):
        assert fingerprint(composed(override)) == base, override
    changed = (
        "model=tiny",
        "cluster.workers=3",
        "partition=knapsack",
        "quantization=int8",
        "generate.seed=1",
    )
    prints = [base, *(fingerprint(composed(override)) for override in changed)]
    assert all(a != b for a, b in itertools.combinations(prints, 2))


def test_the_same_config_has_the_same_digest() -> None:
    assert config().sha256 == config().sha256
    assert config().sha256 != config("generate.temperature=1").sha256
    assert config().sha256 == config("run_dir=elsewhere").sha256


def test_target_stands_nowhere_but_for_hydras_own_callback() -> None:
    found = [f for f in conf_dir().rglob("*.yaml") if "_target_" in f.read_text()]
    assert [f.relative_to(conf_dir()) for f in found] == [Path("config.yaml")]
    assert (conf_dir() / "config.yaml").read_text().count("_target_") == 1
