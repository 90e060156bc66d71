"""Codecs of a deployed chain: the self-test and its result, tables at both ends, and links that lose them."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from hyperlane.artifacts import Deployment, GeneratedText
from hyperlane.compose import compose
from hyperlane.config import Config
from hyperlane.control.types import CodecTables, Wiring
from hyperlane.errors import ConfigError
from hyperlane.generate import wiring
from hyperlane.generate.text import Prompt
from hyperlane.generate.tokenizer import Tokenizer
from hyperlane.rundir import RunDir
from hyperlane.stages import STAGES, Context, selftest
from hyperlane.stages.generate import open_engine
from tests.fixtures_model import Exported
from tests.integration.cli import hyperlane

OVERRIDES = ("generate.context=128", "generate.max_new_tokens=6", "generate.ignore_eos=true")
PROMPTS = [Prompt(0, "", tuple(range(70, 100))), Prompt(1, "", (65, 66))]


def config_of(tiny: Exported, *overrides: str) -> Config:
    return compose("tiny", [f"store.root={tiny.store.root}", *OVERRIDES, *overrides])


@asynccontextmanager
async def deployed(config: Config, folder: Path) -> AsyncIterator[tuple[Deployment, Tokenizer]]:
    async with Context.open(config, RunDir(folder)) as context:
        for name in ("discover", "plan", "export", "deploy"):
            context.artifacts[name] = await STAGES[name].run(context)
        yield context.deployment, Tokenizer.load(await context.checkpoint())


def generate(config: Config, deployment: Deployment, tokenizer: Tokenizer) -> list[GeneratedText]:
    with open_engine(config, deployment, tokenizer) as (engine, _):
        return list(engine.run(PROMPTS, lambda index, piece: None, lambda: None))


def token_ids(texts: list[GeneratedText]) -> list[tuple[int, ...]]:
    return [text.token_ids for text in texts]


def test_whatever_passes_the_run_completes_and_says_so(tiny: Exported, tmp_path: Path) -> None:
    done = hyperlane("model=tiny", "prompt=Hello", *OVERRIDES, cwd=tmp_path, store=tiny.store.root)
    assert done.code == 0, done.err
    (boundary,) = done.artifact("deploy", "deployment.json")["boundaries"]
    assert (boundary["wanted"], boundary["codec"]) == ("int4", "h8"), "random weights have no structure to use"
    assert boundary["relative_error"] < 0.005
    assert "int4 refused after layer 1: relative error" in boundary["refused"][0]
    assert "int4 refused after layer 1" in done.err
    assert "h8 (int4 refused after layer 1" in done.out
    plan = done.artifact("plan", "plan.json")
    assert (plan["codecs"], plan["boundaries"]) == (["int4"], [boundary])
    assert "h8, as int4 was refused" in (done.folder / "plan" / "plan.svg").read_text()
    assert done.generation["links"][1]["codec"] == "h8"


async def test_a_self_test_is_kept_and_taken_up_again(
    tiny: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tiny, "cluster.workers=3", "generate.slots=1")
    async with deployed(config, tmp_path / "first") as (first, tokenizer):
        texts = await trio.to_thread.run_sync(generate, config, first, tokenizer)
        assert len(first.boundaries) == 2
        assert 0 < (first.kl or 0) < 0.02

    def fail(*args: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(selftest, "_measure", fail)
    async with deployed(config, tmp_path / "second") as (second, tokenizer):
        assert second.boundaries == first.boundaries
        assert token_ids(await trio.to_thread.run_sync(generate, config, second, tokenizer)) == token_ids(texts)


async def test_a_link_whose_tables_arrive_damaged_carries_raw_rows(
    tiny: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of(tiny)

    def damaged(boundary: object, store: object) -> wiring.LinkCodecs:
        return wiring.LinkCodecs("h8", "h8", CodecTables(sha256="0" * 64, content=b"tables"))

    async with deployed(config, tmp_path) as (deployment, tokenizer):
        monkeypatch.setattr("hyperlane.stages.generate.link_codecs", damaged)
        texts = await trio.to_thread.run_sync(generate, config, deployment, tokenizer)
        boundaries = (replace(deployment.boundaries[0], codec="raw", tables=None),)
        monkeypatch.undo()
        raw = await trio.to_thread.run_sync(generate, config, replace(deployment, boundaries=boundaries), tokenizer)
    assert token_ids(texts) == token_ids(raw)
    assert "link local-0 -> local-1 carries raw rows: local-1 says: the tables 0000" in caplog.text


async def test_a_receiver_that_lost_its_tables_gets_raw_rows_and_the_texts_go_on(
    tiny: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_of(tiny)

    def forgetful(**fields: Any) -> Wiring:
        return Wiring(**{**fields, "incoming_tables": None})

    def lose_and_generate(deployment: Deployment, tokenizer: Tokenizer) -> tuple[list[GeneratedText], str]:
        with open_engine(config, deployment, tokenizer) as (engine, chain):
            texts = list(engine.run(PROMPTS, lambda index, piece: None, lambda: None))
            return texts, chain.reports()[1].codec

    with caplog.at_level(logging.WARNING):
        async with deployed(config, tmp_path) as (deployment, tokenizer):
            monkeypatch.setattr(wiring, "Wiring", forgetful)
            texts, carried = await trio.to_thread.run_sync(lose_and_generate, deployment, tokenizer)
    assert [len(text.token_ids) for text in texts] == [6, 6]
    assert carried == "raw"
    tables = deployment.boundaries[0].tables
    assert tables is not None
    assert f"made with codec tables {tables.sha256[:16]}, this end holds none" in caplog.text
    assert caplog.text.count("carries raw rows") == 1


async def test_auto_measures_each_link(tiny: Exported, tmp_path: Path) -> None:
    config = config_of(tiny, "transport/codec=auto", "cluster.workers=3")
    async with deployed(config, tmp_path) as (deployment, tokenizer):
        for boundary in deployment.boundaries:
            assert (boundary.wanted, boundary.codec) == ("auto", "h8")
            assert boundary.prefill in ("raw", "h8")
            assert boundary.decode == "raw", "nothing is to be saved on 256 bytes over loopback"
            assert (boundary.bytes_per_s or 0) > 1e6
            assert 0 < (boundary.latency_s or 0) < 0.1
        texts = await trio.to_thread.run_sync(generate, config, deployment, tokenizer)
    assert [len(text.token_ids) for text in texts] == [6, 6]


async def test_a_text_that_is_too_short_is_refused(tiny: Exported, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("Too short.")
    config = config_of(tiny, f"calibration.text={tmp_path / 'short.txt'}")
    with pytest.RaisesGroup(
        pytest.RaisesExc(ConfigError, match="has 10 tokens; give one of 1152"), flatten_subgroups=True
    ):
        async with deployed(config, tmp_path / "run"):
            pass
