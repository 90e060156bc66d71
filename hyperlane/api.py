"""`AutoDistributedModel`: the command line's stages from Python.

from hyperlane import AutoDistributedModel

with AutoDistributedModel.from_pretrained("meta-llama/Llama-2-7b-hf", cluster="lab") as model:
    print(model.generate("What is AI?", max_new_tokens=64))
    for piece in model.stream("Tell me more"):
        print(piece, end="")
"""

import queue
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import trio

from hyperlane.artifacts import Deployment, GeneratedText
from hyperlane.compose import compose
from hyperlane.config import Config, Generate, check_generate
from hyperlane.errors import ConfigError, HyperlaneError, first_known
from hyperlane.generate.engine import Engine, Ticket
from hyperlane.generate.text import Prompt
from hyperlane.rundir import RunDir
from hyperlane.stages import STAGES, Context
from hyperlane.stages.generate import encode, limits, open_engine, sampling
from hyperlane.stages.moving import moving

if TYPE_CHECKING:
    from hyperlane.generate.tokenizer import Tokenizer

_DEPLOYING = ("discover", "plan", "export", "deploy")


@dataclass(frozen=True, slots=True)
class _Open:
    """What the thread that holds the cluster has ready."""

    config: Config
    deployment: Deployment
    engine: Engine
    tokenizer: "Tokenizer"


class AutoDistributedModel:
    """A model deployed over a cluster. Make it with `from_pretrained`; `close` it, or use it in a `with` block.

    Any thread may ask; what is asked at the same time is computed together.
    """

    def __init__(self, opened: _Open, thread: threading.Thread) -> None:
        self._opened = opened
        self._thread = thread
        self._encoding = threading.Lock()
        self.deployment = opened.deployment

    @classmethod
    def from_pretrained(cls, source: str, *, cluster: str = "local", overrides: Sequence[str] = ()) -> Self:
        """Discover, plan, export and deploy.

        source: a folder, a .gguf file, `package:NAME/FILE` or a Hub name; or the name of a config, such as "tiny".
        cluster: a choice of the config group: local, lab or static.
        overrides: more configuration, as on the command line: ["cluster.workers=3", "quantization=int8"].
        Raises HyperlaneError as the command line prints it.
        """
        config = compose(source, [f"cluster={cluster}", *overrides])
        ready: Future[_Open] = Future()
        thread = threading.Thread(target=_serve, args=(config, ready), name="hyperlane", daemon=True)
        thread.start()
        return cls(ready.result(), thread)

    def generate(
        self, text: str | Sequence[str], max_new_tokens: int | None = None, **settings: Any
    ) -> str | list[str]:
        """The answer to one prompt, or the answers to several; `settings` as in `generate.*` (temperature=0.7)."""
        prompts = [text] if isinstance(text, str) else list(text)
        texts = [answer.text for answer in self.generate_full(prompts, max_new_tokens, **settings)]
        return texts[0] if isinstance(text, str) else texts

    def generate_full(
        self, prompts: Sequence[str], max_new_tokens: int | None = None, **settings: Any
    ) -> tuple[GeneratedText, ...]:
        """As `generate`, with token ids, finish reasons and timings."""
        tickets: list[Ticket] = []
        submit = self._submitter(max_new_tokens, settings)
        try:
            for index, text in enumerate(prompts):
                if index >= self._opened.config.generate.queue:  # it holds no more
                    tickets[index - self._opened.config.generate.queue].result()
                tickets.append(submit(index, text, lambda index, piece: None))
            return tuple([ticket.result() for ticket in tickets])
        finally:
            for ticket in tickets:
                ticket.cancel()

    def stream(self, text: str, max_new_tokens: int | None = None, **settings: Any) -> Iterator[str]:
        """The answer to one prompt, piece by piece; an iterator that is closed early ends it."""
        pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        ticket = self._submitter(max_new_tokens, settings)(0, text, lambda index, piece: pieces.put(piece))
        ticket.outcome.add_done_callback(lambda future: pieces.put(None))
        try:
            yield from iter(pieces.get, None)
        finally:
            ticket.cancel()
        ticket.result()

    def close(self) -> None:
        """End the links, and the workers where `cluster=local` started them."""
        self._opened.engine.close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _submitter(
        self, max_new_tokens: int | None, settings: dict[str, Any]
    ) -> Callable[[int, str, Callable[[int, str], None]], Ticket]:
        """What queues a prompt with these settings: (index, text, on_text) -> its ticket."""
        if not self._thread.is_alive():
            raise HyperlaneError("this model is closed; make a new one with from_pretrained")
        config, engine, tokenizer = self._opened.config, self._opened.engine, self._opened.tokenizer
        generate = _settings(config.generate, max_new_tokens, settings)

        def submit(index: int, text: str, on_text: Callable[[int, str], None]) -> Ticket:
            with self._encoding:  # tokenizers are for one thread at a time
                prompt = Prompt(index, text, encode(text, config, tokenizer))
            return engine.submit(prompt, on_text, sampling=sampling(generate), limits=limits(generate))

        return submit


def _serve(config: Config, ready: "Future[_Open]") -> None:
    """The thread that holds the cluster: deploys, then answers until the engine is closed."""
    try:
        trio.run(_deploy_and_answer, config, ready)
    except BaseException as error:
        if not ready.done():
            ready.set_exception(first_known(error))


async def _deploy_and_answer(config: Config, ready: "Future[_Open]") -> None:
    with tempfile.TemporaryDirectory(prefix="hyperlane-") as folder:
        async with Context.open(config, RunDir(Path(folder))) as context:
            for name in _DEPLOYING:
                context.artifacts[name] = await STAGES[name].run(context)
            tokenizer = await context.tokenizer()
            await trio.to_thread.run_sync(_answer, context, tokenizer, ready)


def _answer(context: Context, tokenizer: "Tokenizer", ready: "Future[_Open]") -> None:
    config, deployment = context.config, context.deployment
    with open_engine(config, deployment, tokenizer, partial(moving, context)) as (engine, _):
        ready.set_result(_Open(config, deployment, engine, tokenizer))
        engine.serve(trio.from_thread.check_cancelled)


_PER_CALL = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "stop", "ignore_eos")


def _settings(configured: Generate, max_new_tokens: int | None, settings: dict[str, Any]) -> Generate:
    """The configured settings with those of one call; ConfigError where a name or a value is wrong."""
    unknown = set(settings) - set(_PER_CALL)
    if unknown:
        raise ConfigError(f"{min(unknown)} cannot be set for one call; there are {', '.join(_PER_CALL)}")
    given = settings if max_new_tokens is None else {**settings, "max_new_tokens": max_new_tokens}
    generate = replace(configured, **given)
    check_generate(generate)
    return generate
