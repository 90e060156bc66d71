"""The command line before Hydra: a prompt comes out as it was typed, whatever it holds."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from hyperlane.arguments import CHAT_STAGES, prepare
from hyperlane.compose import conf_dir
from hyperlane.errors import ConfigError

AWKWARD = [
    "a, b: c",
    "key=value",
    "it's",
    'say "hi"',
    "{a: 1}",
    "[1, 2]",
    "${oc.env:HOME}",
    r"\${x} \\${y}",
    "ends with \\",
    "ends with \\\n",
    "two\nlines",
    "123",
    "1e5",
    "true",
    "null",
    "(x) & $y; #z",
    "~",
    " spaces ",
    "é 漢字 🙂",
]


@pytest.fixture(scope="module", autouse=True)
def _hydra() -> Iterator[None]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield


def composed_prompt(text: str) -> object:
    return compose("config", prepare([f"prompt={text}"])).prompt


@pytest.mark.parametrize("text", AWKWARD)
def test_a_prompt_is_taken_as_typed(text: str) -> None:
    assert composed_prompt(text) == text


@settings(deadline=None, max_examples=40)
@given(st.text(st.sampled_from("ab ,:='\"{}[]$\\\n\t()1"), max_size=12))
def test_any_prompt_is_taken_as_typed(text: str) -> None:
    assert composed_prompt(text) == text


def test_other_arguments_stay_hydras() -> None:
    words = ["model=tiny", "generate.stop=[a,b]", "--cfg", "job"]
    assert prepare(words) == words


def test_a_sweep_over_prompts_is_a_job_each() -> None:
    assert prepare(["-m", 'prompts=["a, b","c"]']) == ["--multirun", "prompt='a, b','c'"]
    assert prepare(["-m", "prompts=[one,two]"]) == ["--multirun", "prompt='one','two'"]
    assert prepare(["prompts=[one,two]"]) == ["prompts=[one,two]"]


def test_a_single_prompt_in_a_sweep_is_not_split_at_its_comma() -> None:
    assert prepare(["--multirun", "prompt=a, b"]) == ["--multirun", "prompt='a, b'"]


@pytest.mark.parametrize("text", ["prompts=[a", "prompts=3", "prompts=[]"])
def test_a_wrong_list_of_prompts_is_said(text: str) -> None:
    with pytest.raises(ConfigError, match="prompts="):
        prepare(["-m", text])


def test_chat_is_a_list_of_stages() -> None:
    assert prepare(["chat", "model=tiny"]) == [CHAT_STAGES, "model=tiny"]


def test_a_continued_run_keeps_its_overrides_but_for_those_set_anew(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    earlier = ["model=tiny", "prompt='old'", "generate.max_new_tokens=3"]
    (tmp_path / ".hydra" / "overrides.yaml").write_text(json.dumps(earlier))
    words = prepare([f"run_dir={tmp_path}", "prompt=new"])
    assert words == ["model=tiny", "generate.max_new_tokens=3", f"run_dir={tmp_path}", "prompt='new'"]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not the folder of a run"):
        prepare([f"run_dir={tmp_path}"])


def test_a_continued_run_cannot_be_swept(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be swept"):
        prepare(["-m", f"run_dir={tmp_path}"])


@pytest.mark.parametrize("text", AWKWARD)
def test_a_continued_run_keeps_the_prompt_as_it_was_typed(text: str, tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save(OmegaConf.create(prepare([f"prompt={text}"])), tmp_path / ".hydra" / "overrides.yaml")
    assert compose("config", prepare([f"run_dir={tmp_path}"])).prompt == text


def test_flags_of_a_sweep_may_stand_anywhere() -> None:
    for words in (["-m", "a=1", "b=2"], ["a=1", "-m", "b=2"], ["a=1", "b=2", "--multirun"]):
        assert prepare(words) == ["--multirun", "a=1", "b=2"]
