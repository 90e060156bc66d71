"""The workers of a live chain against their predictions, and a better plan where one is much slower for long."""

import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from threading import Event, Lock, Thread

import trio

from hyperlane.artifacts import Cluster, Deployment, Plan
from hyperlane.config import Config
from hyperlane.control.client import ControlClient
from hyperlane.errors import HyperlaneError, first_known, one_line
from hyperlane.generate.step import Step
from hyperlane.partition import Cut, count
from hyperlane.partition.better import better, slowed
from hyperlane.partition.memory import Workload
from hyperlane.partition.optimal import Optimal
from hyperlane.partition.predict import predict
from hyperlane.partition.slowness import Patience, Slowness
from hyperlane.simulate.compare import replica
from hyperlane.simulate.expected import ratio
from hyperlane.stages.context import Context
from hyperlane.stages.deploy import send_ahead
from hyperlane.stages.workload import workload_of_plan

ASKED_STEPS = 256
"""Records of so many steps at most are fetched at a time."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """A plan to move to, by what `cluster` says of the workers."""

    plan: Plan
    cluster: Cluster
    reason: str


@dataclass(slots=True)
class Watch:
    """`now` is what the chain was planned by. A thread of its own looks; `target` is for the thread that drives it."""

    context: Context
    now: Target
    deployment: Deployment
    _slowness: Slowness
    _token: trio.lowlevel.TrioToken
    _target: Target | None = None
    _steps: deque[Step] = field(default_factory=lambda: deque(maxlen=4 * ASKED_STEPS))
    _lock: Lock = field(default_factory=Lock)  # guards what is above
    _stop: Event = field(default_factory=Event)
    _sending: trio.CancelScope = field(default_factory=trio.CancelScope)

    def observe(self, step: Step) -> None:
        """A step whose result came."""
        with self._lock:
            self._steps.append(step)

    @property
    def target(self) -> Target | None:
        """Files are where they are needed: the chain can be replaced by this one."""
        return self._target

    def settle(self, now: Target, deployment: Deployment) -> None:
        """The chain is another, or it is the same after a move that failed."""
        with self._lock:
            self.now, self.deployment, self._target = now, deployment, None
            self._slowness.answered(time.monotonic())
            self._steps.clear()

    # --- the thread that looks --------------------------------------------------------------------------------

    def run(self) -> None:
        """Until `end`."""
        while not self._stop.is_set():
            deployment = self.deployment
            with ExitStack() as exits:
                shards = deployment.shards
                clients = [exits.enter_context(ControlClient(s.control_address, s.worker)) for s in shards]
                while self.deployment is deployment and not self._stop.wait(self.context.config.replan.every_s):
                    self._look(deployment, clients)

    def end(self) -> None:
        """Let `run` return; what is being sent is cut off."""
        self._stop.set()
        self._token.run_sync_soon(lambda: self._sending.cancel())

    def _look(self, deployment: Deployment, clients: list[ControlClient]) -> None:
        if self._target is not None:
            return
        try:
            ratios = self._ratios(deployment, clients)
            target = self._decide(ratios)
            if target is not None:
                trio.from_thread.run(self._send_ahead, target.plan, trio_token=self._token)
                self._offer(target, deployment)
        except Exception as error:  # of planning or sending: the chain goes on as it is
            known = first_known(error)
            if not isinstance(known, HyperlaneError):
                raise
            log.warning("nothing moves: %s", one_line(known))

    def _offer(self, target: Target, deployment: Deployment) -> None:
        with self._lock:
            if self.deployment is deployment:
                self._target = target

    def _ratios(self, deployment: Deployment, clients: list[ControlClient]) -> dict[str, float]:
        """By worker: what the steps since the last look took, of what was expected."""
        with self._lock:
            steps = {step.number: step for step in self._steps}
            plan, cluster = self.now.plan, self.now.cluster
        if not steps:  # nobody asks for anything
            return {}
        costs = replica(plan.model, cluster, deployment, self.context.config).costs
        calls = [client.records(ASKED_STEPS) for client in clients]
        found = {
            shard.worker: ratio(costs, index, steps, call.result().steps)
            for index, (shard, call) in enumerate(zip(deployment.shards, calls, strict=True))
        }
        known = {worker: value for worker, value in found.items() if value is not None}
        if known:
            last = max(steps)
            with self._lock:
                self._steps = deque((s for s in self._steps if s.number > last), maxlen=self._steps.maxlen)
        return known

    def _decide(self, ratios: Mapping[str, float]) -> Target | None:
        config, now_s = self.context.config, time.monotonic()
        with self._lock:
            now = self.now
            self._slowness.observe(now_s, ratios)
            slow = self._slowness.lasting(now_s)
            if not slow:
                return None
            self._slowness.answered(now_s)
        assert isinstance(config.partition, Optimal)
        reason = "; ".join(f"{name} takes {times:.2g} times what was predicted" for name, times in slow.items())
        cluster, workload = slowed(now.cluster, slow), workload_of_plan(config, now.plan, now.cluster)
        found = better(config.partition, now.plan.model, cluster, workload, now.plan.placements, config.replan.gain)
        if found is None:
            log.warning("%s; no other plan is %.0f %% better", reason, 100 * config.replan.gain)
            return None
        log.warning("%s; layers are moved: %s", reason, found)
        return Target(replanned(config, now.plan, cluster, workload, found.found), cluster, reason)

    async def _send_ahead(self, plan: Plan) -> None:
        with trio.CancelScope() as self._sending:
            if self._stop.is_set():
                self._sending.cancel()
            await send_ahead(self.context, plan)


def replanned(config: Config, plan: Plan, cluster: Cluster, workload: Workload, found: Cut) -> Plan:
    """`plan` with other placements."""
    return replace(
        plan,
        placements=count(config.partition, found, plan.model, cluster, workload),
        codecs=(config.transport.codec.name,) * (len(found.ranges) - 1),
        predicted=predict(plan.model, cluster, workload, found.ranges),
        objective=found.objective,
        bound=found.bound,
    )


@contextmanager
def watching(context: Context, token: trio.lowlevel.TrioToken) -> Iterator[Watch]:
    """A watch over the run's deployment; it looks where workers were timed and the partition is optimal."""
    config, plan = context.config, context.plan
    replan = config.replan
    slowness = Slowness(Patience(above=replan.above, after_s=replan.after_s, pause_s=replan.pause_s))
    watch = Watch(context, Target(plan, context.cluster, ""), context.deployment, slowness, token)
    if not isinstance(config.partition, Optimal) or plan.predicted is None or not plan.predicted.measured:
        log.warning("replan.mode=move replaces workers that fail; for slow ones it needs partition=optimal, timed")
        yield watch
        return
    thread = Thread(target=watch.run, name="watch", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.end()
        thread.join()
