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
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import trio

from hyperlane.artifacts import Deployment, GeneratedText
from hyperlane.compose import compose
from hyperlane.config import Config, Generate, check_generate
from hyperlane.errors import ConfigError, HyperlaneError, first_known
from hyperlane.generate.engine import Prompt
from hyperlane.rundir import RunDir
from hyperlane.stages import STAGES, Context
from hyperlane.stages.generate import encode, limits, open_engine, sampling

if TYPE_CHECKING:
    from hyperlane.generate.tokenizer import Tokenizer

_DEPLOYING = ("discover", "plan", "export", "deploy")


@dataclass(frozen=True, slots=True)
class _Job:
    prompts: Sequence[str]
    max_new_tokens: int | None
    settings: dict[str, Any]  # of generate.*
    on_text: Callable[[int, str], None]
    done: "Future[tuple[GeneratedText, ...]]"


_Jobs = queue.SimpleQueue[_Job | None]


class AutoDistributedModel:
    """A model deployed over a cluster. Make it with `from_pretrained`; `close` it, or use it in a `with` block."""

    def __init__(self, jobs: _Jobs, thread: threading.Thread, deployment: Deployment) -> None:
        self._jobs = jobs
        self._thread = thread
        self.deployment = deployment

    @classmethod
    def from_pretrained(cls, source: str, *, cluster: str = "local", overrides: Sequence[str] = ()) -> Self:
        """Discover, plan, export and deploy.

        source: a folder, a .gguf file, `package:NAME/FILE` or a Hub name; or the name of a config, such as "tiny".
        cluster: a choice of the config group: local, lab or static.
        overrides: more configuration, as on the command line: ["cluster.workers=3", "quantization=int8"].
        Raises HyperlaneError as the command line prints it.
        """
        config = compose(source, [f"cluster={cluster}", *overrides])
        jobs: _Jobs = queue.SimpleQueue()
        ready: Future[Deployment] = Future()
        thread = threading.Thread(target=_serve, args=(config, jobs, ready), name="hyperlane", daemon=True)
        thread.start()
        return cls(jobs, thread, ready.result())

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
        return self._submit(prompts, max_new_tokens, settings, lambda index, piece: None).result()

    def stream(self, text: str, max_new_tokens: int | None = None, **settings: Any) -> Iterator[str]:
        """The answer to one prompt, piece by piece."""
        pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        done = self._submit([text], max_new_tokens, settings, lambda index, piece: pieces.put(piece))
        done.add_done_callback(lambda future: pieces.put(None))
        yield from iter(pieces.get, None)
        done.result()

    def close(self) -> None:
        """End the links, and the workers where `cluster=local` started them."""
        self._jobs.put(None)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _submit(
        self,
        prompts: Sequence[str],
        max_new_tokens: int | None,
        settings: dict[str, Any],
        on_text: Callable[[int, str], None],
    ) -> "Future[tuple[GeneratedText, ...]]":
        if not self._thread.is_alive():
            raise HyperlaneError("this model is closed; make a new one with from_pretrained")
        done: Future[tuple[GeneratedText, ...]] = Future()
        self._jobs.put(_Job(prompts, max_new_tokens, settings, on_text, done))
        return done


def _serve(config: Config, jobs: _Jobs, ready: "Future[Deployment]") -> None:
    """The thread that holds the cluster: deploys, then answers jobs one after another."""
    try:
        trio.run(_deploy_and_answer, config, jobs, ready)
    except BaseException as error:
        known = first_known(error)
        if not ready.done():
            ready.set_exception(known)
        while not jobs.empty():
            if (job := jobs.get()) is not None:
                job.done.set_exception(known)


async def _deploy_and_answer(config: Config, jobs: _Jobs, ready: "Future[Deployment]") -> None:
    with tempfile.TemporaryDirectory(prefix="hyperlane-") as folder:
        async with Context.open(config, RunDir(Path(folder))) as context:
            for name in _DEPLOYING:
                context.artifacts[name] = await STAGES[name].run(context)
            tokenizer = await context.tokenizer()
            await trio.to_thread.run_sync(_answer, context, tokenizer, jobs, ready)


def _answer(context: Context, tokenizer: "Tokenizer", jobs: _Jobs, ready: "Future[Deployment]") -> None:
    config, deployment = context.config, context.deployment
    with open_engine(config, deployment, tokenizer) as (engine, _):
        ready.set_result(deployment)
        for job in iter(jobs.get, None):
            try:
                settings = _settings(config.generate, job)
                engine.sampling, engine.limits = sampling(settings), limits(settings)
                prompts = [Prompt(i, text, encode(text, config, tokenizer)) for i, text in enumerate(job.prompts)]
                job.done.set_result(engine.run(prompts, job.on_text, lambda: None))
            except Exception as error:  # whatever it is belongs to the caller who waits for this job
                job.done.set_exception(error)


_PER_CALL = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "stop", "ignore_eos")


def _settings(configured: Generate, job: _Job) -> Generate:
    """The configured settings with those of one call; ConfigError where a name or a value is wrong."""
    unknown = set(job.settings) - set(_PER_CALL)
    if unknown:
        raise ConfigError(f"{min(unknown)} cannot be set for one call; there are {', '.join(_PER_CALL)}")
    given = job.settings if job.max_new_tokens is None else {**job.settings, "max_new_tokens": job.max_new_tokens}
    settings = replace(configured, **given)
    check_generate(settings)
    return settings
