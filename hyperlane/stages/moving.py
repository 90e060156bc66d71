"""replan.mode=move: other workers, or other layers, take a live chain's place between two steps."""

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import trio

from hyperlane.artifacts import Deployment, Move, Plan, WorkerInfo, WorkerRange
from hyperlane.config import Replanning
from hyperlane.control.client import ControlClient
from hyperlane.errors import HyperlaneError, first_known, one_line
from hyperlane.generate.moving import MovingChain
from hyperlane.generate.scheduler import Shape
from hyperlane.generate.step import Step
from hyperlane.partition import cut
from hyperlane.stages.context import Context
from hyperlane.stages.deploy import deploy
from hyperlane.stages.watch import Target, Watch, replanned, watching
from hyperlane.stages.workload import workload_of_plan

ANSWER_S = 3.0
"""A worker that says nothing for so long after the chain broke counts as gone."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Moving:
    """For the thread that drives the chain, which runs in trio's care."""

    context: Context
    chain: MovingChain
    watch: Watch
    moves: list[Move] = field(default_factory=list)

    def observe(self, step: Step) -> None:
        self.watch.observe(step)

    def turn(self) -> Shape | None:
        """Move where the watch has a better plan ready. Where that fails the old one is deployed again, and goes on."""
        target = self.watch.target
        if target is None:
            return None
        begun_s, before = time.monotonic(), self.watch.now
        self.chain.leave()
        try:
            self._enter(target.plan)
        except HyperlaneError as error:
            log.warning("the layers did not move, the old chain goes on: %s", one_line(error))
            self._enter(before.plan)
            target = before
        else:
            self._note(target.reason, begun_s)
        self.watch.settle(target, self.chain.deployment)
        return self._shape

    def mend(self, error: HyperlaneError) -> Shape | None:
        """Plan without the workers that do not answer any more, as often as it takes."""
        begun_s, now = time.monotonic(), self.watch.now
        while (left := self._without_gone(now)) is not None:
            log.warning("%s: %s", left.reason, one_line(error))
            try:
                self.chain.leave(asking=False)
                self._enter_in_two_tries(left.plan)
            except HyperlaneError as another:
                error, now = another, left
                continue
            self._note(left.reason, begun_s)
            self.watch.settle(left, self.chain.deployment)
            return self._shape
        return None

    def _without_gone(self, now: Target) -> Target | None:
        """A plan for the workers that answer; None where the chain's all do, or where the others do not suffice."""
        gone = _silent(now.cluster.workers)
        lost = [placement.worker for placement in now.plan.placements if placement.worker in gone]
        left = tuple(worker for worker in now.cluster.workers if worker.name not in gone)
        if not lost or not left:
            return None
        config, plan, cluster = self.context.config, now.plan, replace(now.cluster, workers=left)
        workload = workload_of_plan(config, plan, cluster)
        try:
            found = cut(config.partition, plan.model, cluster, workload)
            return Target(replanned(config, plan, cluster, workload, found), cluster, f"{', '.join(lost)} is gone")
        except HyperlaneError as error:
            log.warning("%s is gone, and nothing takes its place: %s", ", ".join(lost), one_line(error))
            return None

    def _enter(self, plan: Plan) -> None:
        self.chain.enter(self._deployed(plan))

    def _enter_in_two_tries(self, plan: Plan) -> None:
        """Files that were being sent ahead, or a worker that is slow to see the other gone, can spoil the first."""
        try:
            self._enter(plan)
        except HyperlaneError as error:
            log.warning("once more: %s", one_line(error))
            self.chain.leave(asking=False)
            self._enter(plan)

    def _deployed(self, plan: Plan) -> Deployment:
        try:
            return trio.from_thread.run(deploy, self.context, plan)
        except ExceptionGroup as group:
            raise first_known(group) from group

    def _note(self, reason: str, begun_s: float) -> None:
        seconds = time.monotonic() - begun_s
        workers = tuple(WorkerRange(name=s.worker, start=s.start, stop=s.stop) for s in self.chain.deployment.shards)
        self.moves.append(Move(reason=reason, workers=workers, seconds=seconds))
        layers = ", ".join(f"{worker.name} {worker.start}:{worker.stop}" for worker in workers)
        log.warning("%s: from now on %s; the texts waited %.2g s", reason, layers, seconds)

    @property
    def _shape(self) -> Shape:
        deployment = self.chain.deployment
        hops = len(deployment.shards)
        lanes = min(self.context.config.generate.lanes or hops, deployment.slots)
        return Shape(hops, lanes, deployment.ragged)


@contextmanager
def moving(context: Context, chain: MovingChain) -> Iterator[Moving | None]:
    """None unless replan.mode=move. To be opened in a thread of trio's."""
    if context.config.replan.mode is not Replanning.move:
        yield None
        return
    token = trio.from_thread.run_sync(trio.lowlevel.current_trio_token)
    with watching(context, token) as watch:
        yield Moving(context, chain, watch)


def _silent(workers: tuple[WorkerInfo, ...]) -> set[str]:
    """Those that do not answer; all are asked at the same time."""
    with ExitStack() as exits:
        asked = [(w.name, exits.enter_context(ControlClient(w.control_address, retries=False))) for w in workers]
        calls = [(name, client.stats(ANSWER_S)) for name, client in asked]
        gone = set()
        for name, call in calls:
            try:
                call.result()
            except HyperlaneError:
                gone.add(name)
        return gone
