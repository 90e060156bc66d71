"""What workers took of what was expected: hindered workers may take longer."""

from dataclasses import replace

import pytest

from hyperlane.artifacts import Cluster
from hyperlane.generate.step import Owner, Step, Use
from hyperlane.partition import Range
from hyperlane.simulate.costs import ChainCosts
from hyperlane.simulate.expected import LEAST_STEPS, longest_s, ratio
from hyperlane.timeline.record import StepRecord
from hyperlane.transport.frame import Run
from tests.partition.clusters import shapes
from tests.partition.test_optimal import worker

MODEL = shapes(8, 1024, 5e7)
RANGES = (Range("a", 0, 4), Range("b", 4, 8))
CODECS = {"prefill": ["raw"], "decode": ["raw"]}
STEPS = {
    number: Step(
        number=number,
        lane=0,
        use=Use.DECODE,
        owners=(Owner(0, 0),),
        runs=(Run(0, 1, 10 + number, 1),),
        token_ids=(1,),
    )
    for number in range(LEAST_STEPS)
}


def costs(**of_a: object) -> ChainCosts:
    cluster = Cluster(workers=(replace(worker("a", 2e10), **of_a), worker("b", 2e10)))
    return ChainCosts.of(MODEL, cluster, RANGES, CODECS)


def took(number: int, seconds: float, *, prefill: bool = False) -> StepRecord:
    start, end = 1000, 1000 + int(1e9 * seconds)
    return StepRecord(number, 0, 1, prefill, 0, 0, 0, start, end, end, end, end)


def test_a_worker_that_takes_twice_as_long() -> None:
    chain = costs()
    records = [took(number, 2 * chain.stages[1].compute_s(step)) for number, step in STEPS.items()]
    assert ratio(chain, 1, STEPS, records) == pytest.approx(2, rel=1e-3)


def test_too_few_steps_of_decode_say_nothing() -> None:
    chain, stranger = costs(), took(999, 1.0)
    few = [took(number, 1.0) for number in list(STEPS)[1:]]
    assert ratio(chain, 0, STEPS, [*few, took(0, 1.0, prefill=True), stranger]) is None


def test_neighbours_and_quotas_explain_some_of_it() -> None:
    alone = longest_s(costs(), 0, STEPS[0])
    assert longest_s(costs(share=0.5), 0, STEPS[0]) == pytest.approx(2 * alone)
    assert longest_s(costs(crowded_decode=1.3, machine="m"), 0, STEPS[0]) == pytest.approx(alone)
    cluster = Cluster(workers=tuple(replace(worker(n, 2e10), crowded_decode=1.3, machine="m") for n in "ab"))
    assert longest_s(ChainCosts.of(MODEL, cluster, RANGES, CODECS), 0, STEPS[0]) == pytest.approx(1.3 * alone)
