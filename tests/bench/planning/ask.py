"""`python -m tests.bench.planning.ask`: a coordinator that plans and measures what it is told, line by line.

Each line on stdin is a `Task` as JSON, each on stdout its `Answer`. A task discovers (workers and links are timed),
plans, deploys, and then generates: lone prompts one after another, and several at once.
"""

import itertools
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import trio

from hyperlane.artifacts import Accuracy, Cluster, GeneratedText, Generation, WorkerRange
from hyperlane.compose import compose
from hyperlane.errors import HyperlaneError, one_line
from hyperlane.generate.engine import Engine
from hyperlane.generate.text import Limits, Prompt
from hyperlane.partition.calibration import WorkerCalibration, calibrated, learnt
from hyperlane.rundir import RunDir
from hyperlane.simulate.compare import compare, replica, requests
from hyperlane.simulate.serve import Simulated, simulate_phases
from hyperlane.stages import STAGES, Context
from hyperlane.stages.generate import encode, measured_workers, open_engine
from tests.bench.planning.models import MODELS, prompt

if TYPE_CHECKING:
    from hyperlane.generate.tokenizer import Tokenizer

RESTED_S = 0.15  # longer than the period of a CPU quota
STAGES_BEFORE = ("discover", "plan", "export", "deploy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    model: str
    overrides: list[str]
    prompt_tokens: int
    new_tokens: int
    repeat: int  # lone prompts; the first of all only warms up
    streams: int = 0  # prompts at once, after those


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Medians. `calibrated_*`: as predicted with what the first task of this process taught."""

    layers: str
    step_s: float
    ttft_s: float
    predicted_step_s: float
    predicted_ttft_s: float
    calibrated_step_s: float
    calibrated_ttft_s: float
    streams_s: float  # until the last token of `streams` prompts at once
    predicted_streams_s: float
    streams_tokens_per_s: float  # of all together, once each has its first token
    stages: list[dict[str, object]]


def main() -> None:
    known: dict[str, WorkerCalibration] = {}
    for line in sys.stdin:
        try:
            answer = trio.run(_answer, Task(**json.loads(line)), known)
        except HyperlaneError as error:
            sys.exit(one_line(error))
        print(json.dumps(asdict(answer)), flush=True)


async def _answer(task: Task, known: dict[str, WorkerCalibration]) -> Answer:
    source, overrides = MODELS[task.model]
    text = prompt(task.model, task.prompt_tokens, 0)
    words = ["cluster=static", "security.allow_lan=true", "generate.raw_prompt=true", "generate.ignore_eos=true"]
    words += ["generate.prefix_cache=false", "measure=always", f"prompt='{text}'"]
    words += [f"stages=[{','.join(STAGES_BEFORE)},generate]", *overrides, *task.overrides]
    config = compose(source, words)
    with tempfile.TemporaryDirectory(prefix="hyperlane-") as folder:
        async with Context.open(config, RunDir(Path(folder))) as context:
            for name in STAGES_BEFORE:
                context.artifacts[name] = await STAGES[name].run(context)
            return await trio.to_thread.run_sync(_measured, task, context, await context.tokenizer(), known)


def _measured(task: Task, context: Context, tokenizer: "Tokenizer", known: dict[str, WorkerCalibration]) -> Answer:
    seeds = itertools.count(1)

    def asked(engine: Engine, count: int) -> tuple[GeneratedText, ...]:
        texts = [prompt(task.model, task.prompt_tokens, next(seeds)) for _ in range(count)]
        prompts = [Prompt(i, text, encode(text, context.config, tokenizer)) for i, text in enumerate(texts)]
        return engine.run(prompts, lambda index, piece: None, lambda: None)

    with open_engine(context.config, context.deployment, tokenizer) as (engine, chain):
        engine.limits = Limits(max_new_tokens=task.new_tokens, ignore_eos=True)
        asked(engine, 1)
        warm = len(chain.timeline().trips)
        lone = []
        for turn in range(task.repeat):
            time.sleep(RESTED_S * (1 + turn / task.repeat))  # quotas have their budgets again, in whatever phase
            lone += asked(engine, 1)
        timeline = chain.timeline()
        timeline = timeline.part([trip.step for trip in timeline.trips][warm:])
        asked(engine, task.streams)
        many = asked(engine, task.streams)
    workers = measured_workers(context.deployment, timeline)
    cluster = context.cluster
    plain = _compared(context, cluster, _median(lone), workers)
    if not known:
        known.update(learnt(cluster, {}, plain))
    better = _compared(context, calibrated(cluster, known), _median(lone), workers)
    return Answer(
        layers=", ".join(f"{p.worker} {p.start}:{p.stop}" for p in context.plan.placements),
        step_s=plain.step_measured_s,
        ttft_s=plain.ttft_measured_s,
        predicted_step_s=plain.step_predicted_s,
        predicted_ttft_s=plain.ttft_predicted_s,
        calibrated_step_s=better.step_predicted_s,
        calibrated_ttft_s=better.ttft_predicted_s,
        streams_s=_last_s(many),
        predicted_streams_s=_simulated(context, cluster, many).end_s if many else 0.0,
        streams_tokens_per_s=_rate(many),
        stages=[asdict(stage) for stage in plain.stages],
    )


def _median(texts: Sequence[GeneratedText]) -> GeneratedText:
    return replace(
        texts[0],
        ttft_s=median(text.ttft_s for text in texts),
        decode_tokens_per_s=median(text.decode_tokens_per_s for text in texts),
    )


def _compared(context: Context, cluster: Cluster, text: GeneratedText, workers: tuple[WorkerRange, ...]) -> Accuracy:
    generation = Generation(requests=(text,), links=(), workers=workers)
    found = compare(context.plan.model, cluster, context.deployment, generation, context.config)
    assert found is not None
    return found


def _last_s(texts: Sequence[GeneratedText]) -> float:
    return max((t.ttft_s + (len(t.token_ids) - 1) / t.decode_tokens_per_s for t in texts), default=0.0)


def _rate(texts: Sequence[GeneratedText]) -> float:
    """Tokens of all, from the last one's first to the first one's last, about: nobody's prompt is in the way."""
    return sum(text.decode_tokens_per_s for text in texts)


def _simulated(context: Context, cluster: Cluster, texts: Sequence[GeneratedText]) -> Simulated:
    chain = replica(context.plan.model, cluster, context.deployment, context.config)
    found = simulate_phases(chain, requests(texts))
    return sorted(found, key=lambda one: one.end_s)[len(found) // 2]


if __name__ == "__main__":
    main()
