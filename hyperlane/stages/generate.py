"""generate: the prompts through the deployed chain; text streams to the terminal, tokens go to generation.json."""

import gc
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import trio
from rich.console import Console
from rich.markup import escape

from hyperlane.artifacts import Accuracy, Deployment, Generation, Move, WorkerRange
from hyperlane.config import Config, Generate
from hyperlane.errors import RequestError
from hyperlane.generate.engine import Engine, Mover
from hyperlane.generate.moving import MovingChain, open_moving_chain
from hyperlane.generate.sampling import Sampling
from hyperlane.generate.scheduler import Scheduler
from hyperlane.generate.text import Limits, Prompt
from hyperlane.generate.wiring import LinkCodecs, link_codecs
from hyperlane.model.store import LayerStore
from hyperlane.report import summary
from hyperlane.simulate.compare import compare
from hyperlane.stages.context import Context
from hyperlane.stages.drafting import speculation
from hyperlane.stages.learning import learn
from hyperlane.stages.links import link_options
from hyperlane.stages.moving import Moving, moving
from hyperlane.stages.offer import offer
from hyperlane.timeline.plot import draw_timeline
from hyperlane.timeline.timeline import Timeline, busy_shares, step_times
from hyperlane.timeline.trace import trace

if TYPE_CHECKING:
    from hyperlane.generate.tokenizer import Tokenizer

log = logging.getLogger(__name__)


async def run(context: Context) -> Generation:
    tokenizer = await context.tokenizer()
    return await trio.to_thread.run_sync(_generate, context, tokenizer)


def show(context: Context) -> None:
    """The texts that were not streamed, then the table."""
    generation = context.generation
    console = Console(highlight=False)
    if context.streamed:
        print()
    elif len(generation.requests) == 1:
        print(generation.requests[0].text)
    else:
        for number, request in enumerate(generation.requests, 1):
            console.print(f"[bold]\\[{number}] {escape(request.prompt)}[/bold]")
            print(request.text)
    print()
    console.print(summary(generation, context.deployment, str(context.run_dir.root)))


def _generate(context: Context, tokenizer: "Tokenizer") -> Generation:
    config, deployment = context.config, context.deployment
    prompts = [Prompt(i, text, encode(text, config, tokenizer)) for i, text in enumerate(context.prompts)]
    with open_engine(config, deployment, tokenizer, partial(moving, context)) as (engine, chain):
        requests = engine.run(prompts, _printer(context), trio.from_thread.check_cancelled)
        timeline = chain.timeline()
        _write(timeline, context)
        generation = Generation(
            requests=requests,
            links=chain.reports(),
            workers=measured_workers(chain.deployment, timeline),
            moves=moves_of(engine),
        )
    return replace(generation, accuracy=_accuracy(context, generation))


def _accuracy(context: Context, generation: Generation) -> Accuracy | None:
    """The run next to what its plan's figures say of it, where they were measured; what it taught is kept."""
    plan, config = context.plan, context.config
    if plan.predicted is None or not plan.predicted.measured or generation.moves:
        return None
    accuracy = compare(plan.model, context.cluster, context.deployment, generation, config)
    if accuracy is not None and (said := offer(plan, context.cluster, accuracy, config)) is not None:
        log.warning("%s", said)
    if accuracy is not None and config.learn:
        learn(context.cluster, plan.model, accuracy, config)
    return accuracy


def _write(timeline: Timeline, context: Context) -> None:
    context.run_dir.write_text("generate", "timeline.json", trace(timeline))
    context.run_dir.write_text("generate", "timeline.svg", draw_timeline(timeline))


def measured_workers(deployment: Deployment, timeline: Timeline) -> tuple[WorkerRange, ...]:
    found = zip(ranges(deployment), busy_shares(timeline), step_times(timeline), strict=True)
    return tuple(replace(worker, busy=busy, times=times) for worker, busy, times in found)


def _no_mover(chain: MovingChain) -> AbstractContextManager[None]:
    return nullcontext()


def moves_of(engine: Engine) -> tuple[Move, ...]:
    """What moved while the engine ran."""
    return tuple(engine.mover.moves) if isinstance(engine.mover, Moving) else ()


@contextmanager
def open_engine(
    config: Config,
    deployment: Deployment,
    tokenizer: "Tokenizer",
    mover: Callable[[MovingChain], AbstractContextManager[Mover | None]] = _no_mover,
) -> Iterator[tuple[Engine, MovingChain]]:
    """A wired chain, and an engine that serves requests over it; `mover` may replace the chain meanwhile."""
    generate, hops = config.generate, len(deployment.shards)
    store = LayerStore(config.store.path)
    drafts = speculation(config, deployment, tokenizer)

    def links_of(deployment: Deployment) -> list[LinkCodecs]:
        return [link_codecs(boundary, store) for boundary in deployment.boundaries]

    with open_moving_chain(deployment, links_of, link_options(config)) as chain, mover(chain) as moves:
        scheduler = Scheduler(
            slots=deployment.slots,
            lanes=min(generate.lanes or hops, deployment.slots),
            context=deployment.context,
            prefill_chunk=generate.prefill_chunk,
            hops=hops,
            reuse=generate.prefix_cache,
            ragged=deployment.ragged,
            drafts=drafts,
        )
        engine = Engine(
            chain=chain,
            scheduler=scheduler,
            sampling=sampling(generate),
            limits=limits(generate),
            stop_ids=tokenizer.stop_ids,
            open_decoder=tokenizer.stream,
            queue=generate.queue,
            mover=moves,
        )
        gc.freeze()  # the libraries' many objects live on: the collector need not walk them between two tokens
        yield engine, chain


def limits(generate: Generate) -> Limits:
    return Limits(max_new_tokens=generate.max_new_tokens, stop=tuple(generate.stop), ignore_eos=generate.ignore_eos)


def sampling(generate: Generate) -> Sampling:
    return Sampling(
        temperature=generate.temperature,
        top_k=generate.top_k,
        top_p=generate.top_p,
        min_p=generate.min_p,
        repetition_penalty=generate.repetition_penalty,
        seed=generate.seed,
    )


def ranges(deployment: Deployment) -> tuple[WorkerRange, ...]:
    return tuple(WorkerRange(name=shard.worker, start=shard.start, stop=shard.stop) for shard in deployment.shards)


def encode(text: str, config: Config, tokenizer: "Tokenizer") -> tuple[int, ...]:
    """A prompt's token ids: in the chat template, unless generate.raw_prompt; RequestError where it is empty."""
    if not text.strip():
        raise RequestError("the prompt is empty; give it some text")
    if config.generate.raw_prompt:
        return tuple(tokenizer.encode(text))
    system = config.generate.system
    messages = [("system", system)] if system else []
    return tuple(tokenizer.encode_chat([*messages, ("user", text)]))


def _printer(context: Context) -> Callable[[int, str], None]:
    """Shows the text of a lone prompt as it comes; of several, `show` prints one after another."""
    if len(context.prompts) > 1 or not context.config.generate.stream:
        return lambda index, piece: None
    context.streamed = True

    def show_piece(index: int, piece: str) -> None:
        sys.stdout.write(piece)
        sys.stdout.flush()

    return show_piece
