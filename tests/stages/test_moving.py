"""Moves of a live chain over workers that are only pretended: what fails leaves the old chain in place."""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hyperlane.artifacts import Cluster, Deployment, Plan, Shard
from hyperlane.compose import compose
from hyperlane.errors import WorkerError
from hyperlane.generate.scheduler import Shape
from hyperlane.generate.step import Step, Use
from hyperlane.partition.slowness import Patience, Slowness
from hyperlane.stages import moving
from hyperlane.stages.moving import Moving
from hyperlane.stages.selftest import untested
from hyperlane.stages.watch import Target, Watch, replanned
from hyperlane.stages.workload import workload_of_plan
from tests.partition.clusters import shapes
from tests.partition.planned import planned
from tests.partition.test_optimal import worker

MODEL = shapes(24, 4096, 2e8)
CLUSTER = Cluster(workers=tuple(worker(name, 2e10) for name in "abc"))
CONFIG = compose("tiny", ["cluster=simulated", "partition=uniform", "transport/codec=raw", "replan.mode=move"])
PLAN = planned(CONFIG, MODEL, CLUSTER, 64)
BEFORE = Target(PLAN, CLUSTER, "")
AFTER = Target(replace(PLAN, placements=PLAN.placements[:2]), CLUSTER, "c is slow")


@dataclass
class FakeChain:
    """Takes a plan's workers in, unless they include one that is `broken`."""

    broken: str = ""
    stumbles: int = 0  # how many of the first enterings fail
    entered: list[str] = field(default_factory=list)
    left: int = 0
    deployment: Any = None

    def leave(self, *, asking: bool = True) -> None:
        self.left += 1

    def enter(self, deployment: Any) -> None:
        names = "".join(shard.worker for shard in deployment.shards)
        self.entered.append(names)
        if len(self.entered) <= self.stumbles:
            raise WorkerError("bytes 0 to 9 are missing")
        if self.broken and self.broken in names:
            raise WorkerError(f"worker {self.broken} cannot be reached")
        self.deployment = deployment


@dataclass
class FakeWatch:
    now: Target = BEFORE
    target: Target | None = AFTER
    settled: list[Target] = field(default_factory=list)

    def settle(self, now: Target, deployment: Any) -> None:
        self.settled.append(now)
        self.now, self.target = now, None


def mover(chain: FakeChain, watch: FakeWatch, monkeypatch: pytest.MonkeyPatch) -> Moving:
    def deployed(self: Moving, plan: Plan) -> Any:
        shards = [SimpleNamespace(worker=p.worker, start=p.start, stop=p.stop) for p in plan.placements]
        return SimpleNamespace(shards=shards, slots=plan.slots, ragged=len(shards) < 3)

    monkeypatch.setattr(Moving, "_deployed", deployed)
    context = SimpleNamespace(config=CONFIG)
    return Moving(cast(Any, context), cast(Any, chain), cast(Any, watch))


def test_a_better_plan_takes_the_chains_place(monkeypatch: pytest.MonkeyPatch) -> None:
    chain, watch = FakeChain(), FakeWatch()
    moves = mover(chain, watch, monkeypatch)
    assert moves.turn() == Shape(2, 2, True)
    assert (chain.entered, chain.left, watch.settled) == (["ab"], 1, [AFTER])
    (move,) = moves.moves
    assert (move.reason, [w.name for w in move.workers]) == ("c is slow", ["a", "b"])
    assert moves.turn() is None


def test_the_old_chain_goes_on_where_a_move_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    chain, watch = FakeChain(broken="d"), FakeWatch()
    placement = replace(PLAN.placements[0], worker="d", stop=24)
    watch.target = replace(AFTER, plan=replace(PLAN, placements=(placement,)))
    moves = mover(chain, watch, monkeypatch)
    assert moves.turn() == Shape(3, 3)
    assert chain.entered == ["d", "abc"]
    assert (watch.settled, moves.moves) == ([BEFORE], [])


def test_a_worker_that_is_gone_is_planned_without(monkeypatch: pytest.MonkeyPatch) -> None:
    chain, watch = FakeChain(), FakeWatch(target=None)
    moves = mover(chain, watch, monkeypatch)
    monkeypatch.setattr(moving, "_silent", lambda workers: {"b"})
    assert moves.mend(WorkerError("the chain fell silent")) == Shape(2, 2, True)
    assert chain.entered == ["ac"]
    assert [worker.name for worker in watch.now.cluster.workers] == ["a", "c"]
    assert [move.reason for move in moves.moves] == ["b is gone"]


def test_what_spoils_one_deployment_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    chain, watch = FakeChain(stumbles=1), FakeWatch(target=None)
    moves = mover(chain, watch, monkeypatch)
    monkeypatch.setattr(moving, "_silent", lambda workers: {"b"})
    assert moves.mend(WorkerError("the chain fell silent")) == Shape(2, 2, True)
    assert chain.entered == ["ac", "ac"]
    assert [move.reason for move in moves.moves] == ["b is gone"]


def test_another_may_die_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    chain, watch = FakeChain(broken="c"), FakeWatch(target=None)
    moves = mover(chain, watch, monkeypatch)
    gone = iter([{"b"}, {"c"}])
    monkeypatch.setattr(moving, "_silent", lambda workers: next(gone))
    assert moves.mend(WorkerError("the chain fell silent")) == Shape(1, 1, True)
    assert chain.entered == ["ac", "ac", "a"]


@pytest.mark.parametrize("gone", [set(), {"a", "b", "c"}])
def test_a_chain_of_workers_that_all_answer_or_none_is_not_mended(
    gone: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chain, watch = FakeChain(), FakeWatch(target=None)
    moves = mover(chain, watch, monkeypatch)
    monkeypatch.setattr(moving, "_silent", lambda workers: gone)
    assert moves.mend(WorkerError("taken over by another run")) is None
    assert (chain.entered, chain.left, moves.moves) == ([], 0, [])


def test_workers_are_not_asked_while_there_are_no_steps() -> None:
    """A chat that waits for its user says nothing of a worker that does not answer."""

    def asked(steps: int) -> None:
        raise WorkerError("worker b cannot be reached")

    patience = Patience(above=CONFIG.replan.above, after_s=CONFIG.replan.after_s, pause_s=CONFIG.replan.pause_s)
    shards = [
        Shard(
            worker=p.worker,
            start=p.start,
            stop=p.stop,
            digest="",
            control_address="",
            data_addresses=(),
            loaded=True,
            sent_files=0,
            sent_bytes=0,
        )
        for p in PLAN.placements
    ]
    deployment = Deployment(
        key="",
        shards=tuple(shards),
        boundaries=untested(PLAN),
        slots=PLAN.slots,
        context=PLAN.context,
        hidden_size=4096,
        vocab_size=100,
        dtype="float32",
    )
    watch = Watch(cast(Any, SimpleNamespace(config=CONFIG)), BEFORE, deployment, Slowness(patience), cast(Any, None))
    clients = [cast(Any, SimpleNamespace(records=asked)) for _ in deployment.shards]
    assert watch._ratios(deployment, clients) == {}
    watch.observe(Step(number=1, lane=0, use=Use.DECODE, owners=()))
    with pytest.raises(WorkerError, match="b cannot be reached"):
        watch._ratios(deployment, clients)


def test_a_new_plan_asks_for_the_same_room() -> None:
    workload = workload_of_plan(CONFIG, PLAN, CLUSTER)
    assert (workload.slots, workload.context) == (PLAN.slots, PLAN.context)
    found = CONFIG.partition.cut(MODEL, CLUSTER, workload)
    again = replanned(CONFIG, PLAN, CLUSTER, workload, found)
    assert (again.placements, again.codecs, again.predicted) == (PLAN.placements, PLAN.codecs, PLAN.predicted)
