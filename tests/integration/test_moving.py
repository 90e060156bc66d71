"""A live chain whose worker becomes slow, or dies: other workers go on with the same tokens."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from threading import Event, Thread

import pytest
import trio

from hyperlane.artifacts import Generation
from hyperlane.compose import compose
from hyperlane.config import Config
from hyperlane.generate.text import Prompt
from hyperlane.generate.tokenizer import Tokenizer
from hyperlane.rundir import RunDir
from hyperlane.stages import STAGES, Context
from hyperlane.stages.generate import encode, moves_of, open_engine, ranges
from hyperlane.stages.moving import moving
from tests.fixtures_model import Exported
from tests.integration.processes import WorkerProcess, start_worker, stop_worker

PROMPTS = ["What is AI?", "Tell me of the sea, and of the ships that sail on it."]
SAMPLED = ("generate.temperature=1.0", "generate.seed=7")
STOPPED_S, RUNNING_S = 0.04, 0.01

OnText = Callable[[int, str], None]


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[dict[str, WorkerProcess]]:
    """Three, with a store each: what a worker lacks is sent."""
    common = ("--cluster", "moving", "--threads", "1")
    found = {name: start_worker("--name", name, "--store", str(tmp_path / name), *common) for name in ("a", "b", "c")}
    try:
        for process in found.values():
            process.wait_ready()
        yield found
    finally:
        for process in found.values():
            os.kill(process.popen.pid, signal.SIGCONT)
            stop_worker(process)


def config_of(tiny: Exported, workers: dict[str, WorkerProcess], *overrides: str) -> Config:
    addresses = ",".join(f"127.0.0.1:{worker.port('control')}" for worker in workers.values())
    words = [
        "cluster=static",
        f"cluster.addresses=[{addresses}]",
        f"store.root={tiny.store.root}",
        "stages=[discover,plan,export,deploy,generate]",
        "transport/codec=raw",
        "generate.context=512",
        "generate.max_new_tokens=400",
        "generate.ignore_eos=true",
        "generate.prefill_chunk=16",
        "learn=false",
        "replan.mode=move",
        *SAMPLED,
    ]
    return compose("tiny", [*words, f"prompts={PROMPTS!r}", *overrides])


@contextmanager
def hobbled(process: WorkerProcess) -> Iterator[None]:
    """The process runs for a fifth of the time."""
    over = Event()

    def stop_and_go() -> None:
        while not over.wait(RUNNING_S):
            os.kill(process.popen.pid, signal.SIGSTOP)
            over.wait(STOPPED_S)
            os.kill(process.popen.pid, signal.SIGCONT)

    thread = Thread(target=stop_and_go)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def run(config: Config, folder: Path, during: Callable[[Context], AbstractContextManager[OnText]]) -> list[Generation]:
    """The prompts twice over one deployment: undisturbed, then in `during`, which may look at each piece of text."""

    def answers(context: Context, tokenizer: Tokenizer, on_text: OnText) -> Generation:
        config, deployment = context.config, context.deployment
        prompts = [Prompt(i, text, encode(text, config, tokenizer)) for i, text in enumerate(PROMPTS)]
        with open_engine(config, deployment, tokenizer, partial(moving, context)) as (engine, chain):
            requests = engine.run(prompts, on_text, trio.from_thread.check_cancelled)
            return Generation(
                requests=requests, links=chain.reports(), workers=ranges(chain.deployment), moves=moves_of(engine)
            )

    async def both() -> list[Generation]:
        async with Context.open(config, RunDir(folder)) as context:
            for name in ("discover", "plan", "export", "deploy"):
                context.artifacts[name] = await STAGES[name].run(context)
            tokenizer = await context.tokenizer()
            first = await trio.to_thread.run_sync(answers, context, tokenizer, lambda index, piece: None)
            with during(context) as on_text:
                second = await trio.to_thread.run_sync(answers, context, tokenizer, on_text)
            return [first, second]

    async def in_time() -> list[Generation]:
        with trio.fail_after(100):
            return await both()

    return trio.run(in_time)


def names(generation: Generation) -> list[str]:
    return [worker.name for worker in generation.workers]


def test_layers_leave_a_slow_worker_and_the_texts_go_on(
    tiny: Exported, workers: dict[str, WorkerProcess], tmp_path: Path
) -> None:
    @contextmanager
    def during(context: Context) -> Iterator[OnText]:
        with hobbled(workers[context.plan.placements[0].worker]):
            yield lambda index, piece: None

    config = config_of(tiny, workers, "partition=optimal", "replan.every_s=0.05", "replan.after_s=0.2")
    undisturbed, disturbed = run(config, tmp_path / "run", during)
    assert undisturbed.moves == ()
    (slow,) = names(undisturbed)
    (move,) = disturbed.moves
    assert f"{slow} takes " in move.reason
    assert slow not in names(disturbed)
    assert [worker.name for worker in move.workers] == names(disturbed)
    assert [text.token_ids for text in disturbed.requests] == [text.token_ids for text in undisturbed.requests]
    assert {link.target for link in disturbed.links} >= {slow, *names(disturbed)}, "both chains carried frames"


def test_the_others_take_over_from_a_worker_that_dies(
    tiny: Exported, workers: dict[str, WorkerProcess], tmp_path: Path
) -> None:
    pieces: list[str] = []

    @contextmanager
    def during(context: Context) -> Iterator[OnText]:
        def kill(index: int, piece: str) -> None:
            pieces.append(piece)
            if len(pieces) == 20:
                workers["b"].popen.kill()

        yield kill

    config = config_of(tiny, workers, "partition=uniform", "generate.max_new_tokens=60")
    undisturbed, disturbed = run(config, tmp_path / "run", during)
    assert (names(undisturbed), names(disturbed)) == (["a", "b", "c"], ["a", "c"])
    assert [move.reason for move in disturbed.moves] == ["b is gone"]
    assert [text.token_ids for text in disturbed.requests] == [text.token_ids for text in undisturbed.requests]
    assert "".join(pieces) != ""
