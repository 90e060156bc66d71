"""What the stages of one run share: the configuration, the artifacts so far, and what is opened on first use."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import trio
from rich.console import Console

from hyperlane.artifacts import Checkup, Cluster, Deployment, Generation, Manifest, Plan, Simulation
from hyperlane.cluster.interfaces import is_loopback
from hyperlane.cluster.source import Finder, Surroundings
from hyperlane.config import Config
from hyperlane.errors import ClusterError, HyperlaneError
from hyperlane.model.store import LayerStore
from hyperlane.rundir import RunDir, text_digest
from hyperlane.stages.prompts import read_prompts

if TYPE_CHECKING:
    from hyperlane.generate.tokenizer import Tokenizer
    from hyperlane.model.source import Checkpoint


@dataclass(slots=True)
class Context:
    """One run. `artifacts` maps a stage's name to what it made; `inputs` names what was read from outside."""

    config: Config
    run_dir: RunDir
    prompts: tuple[str, ...]
    console: Console
    artifacts: dict[str, object] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    streamed: bool = False  # the text is on the terminal already
    _exits: AsyncExitStack = field(default_factory=AsyncExitStack)
    _source: Finder | None = None
    _live: Cluster | None = None
    _checkpoint: "Checkpoint | None" = None
    _tokenizer: "Tokenizer | None" = None
    _reading: trio.Lock = field(default_factory=trio.Lock)

    @staticmethod
    @asynccontextmanager
    async def open(config: Config, run_dir: RunDir) -> "AsyncIterator[Context]":
        """A context whose workers and links end with it."""
        prompts = read_prompts(config) if "generate" in config.stages else ()
        async with AsyncExitStack() as exits, trio.open_nursery() as nursery:
            context = Context(config, run_dir, prompts, Console(stderr=True, highlight=False), _exits=exits)
            if prompts:
                context.inputs["prompts"] = text_digest("\0".join(prompts))
            nursery.start_soon(context._read_ahead)
            yield context
            nursery.cancel_scope.cancel()

    async def probe(self) -> Cluster:
        """The workers as they are now; a cluster that is made of processes starts them."""
        if self._source is None:
            self._source = await self._exits.enter_async_context(
                self.config.cluster.open(
                    Surroundings(store_root=self.store.root, log_folder=self.run_dir.root / "workers")
                )
            )
        self._live = await self._source.find()
        self._check_loopback(self._live)
        return self._live

    def _check_loopback(self, cluster: Cluster) -> None:
        """Off loopback only when said: nothing is authenticated or encrypted until mutual TLS comes."""
        away = [w for w in cluster.workers if not is_loopback(w.control_address)]
        if not away:
            return
        where = f"{away[0].name} at {away[0].control_address}"
        if not self.config.security.allow_lan:
            raise ClusterError(
                f"worker {where} is not on loopback, and nothing is authenticated; "
                f"set security.allow_lan=true to use it"
            )
        self.console.print(
            f"[bold red]WARNING: prompts and hidden states go to {where} in the clear, and whoever reaches a worker's "
            f"ports can use it. Do this on networks that you trust.[/bold red]"
        )

    async def live(self) -> Cluster:
        """The workers as this run last saw them."""
        return self._live or await self.probe()

    async def checkpoint(self) -> "Checkpoint":
        """The model's files and configuration."""
        async with self._reading:
            if self._checkpoint is None:
                self._checkpoint = await trio.to_thread.run_sync(self._resolve, abandon_on_cancel=True)
                self.inputs["model"] = self._checkpoint.identity
        return self._checkpoint

    async def tokenizer(self) -> "Tokenizer":
        """The model's tokenizer."""
        checkpoint = await self.checkpoint()
        if self._tokenizer is None:
            self._tokenizer = await trio.to_thread.run_sync(_load_tokenizer, checkpoint, abandon_on_cancel=True)
        return self._tokenizer

    def _resolve(self) -> "Checkpoint":
        from hyperlane.model.source import resolve  # torch takes seconds: in this thread, while workers start

        model = self.config.model
        return resolve(model.source, model.revision, model.architecture, model.seed, self.store)

    async def _read_ahead(self) -> None:
        """Read the model while workers are looked for; what fails is said by the stage that needs it."""
        if set(self.config.stages) - {"discover"}:
            with contextlib.suppress(HyperlaneError):
                await self.checkpoint()

    @property
    def store(self) -> LayerStore:
        return LayerStore(self.config.store.path)

    @property
    def cluster(self) -> Cluster:
        return cast(Cluster, self.artifacts["discover"])

    @property
    def plan(self) -> Plan:
        return cast(Plan, self.artifacts["plan"])

    @property
    def manifest(self) -> Manifest:
        return cast(Manifest, self.artifacts["export"])

    @property
    def deployment(self) -> Deployment:
        return cast(Deployment, self.artifacts["deploy"])

    @property
    def checkup(self) -> Checkup:
        return cast(Checkup, self.artifacts["doctor"])

    @property
    def simulation(self) -> Simulation:
        return cast(Simulation, self.artifacts["simulate"])

    @property
    def generation(self) -> Generation:
        return cast(Generation, self.artifacts["generate"])


def _load_tokenizer(checkpoint: "Checkpoint") -> "Tokenizer":
    from hyperlane.generate.tokenizer import Tokenizer

    return Tokenizer.load(checkpoint)
