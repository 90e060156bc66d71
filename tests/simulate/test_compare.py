"""A run next to its simulation, and what it teaches: who was slower than timed is predicted slower next time."""

from dataclasses import replace

import pytest

from hyperlane.artifacts import (
    Accuracy,
    Boundary,
    Deployment,
    GeneratedText,
    Generation,
    Shard,
    StepTimes,
    WorkerRange,
)
from hyperlane.compose import compose
from hyperlane.partition.calibration import WorkerCalibration, calibrated, learnt
from hyperlane.report import predicted
from hyperlane.simulate.compare import compare, replica, requests
from hyperlane.simulate.serve import simulate
from tests.simulate.test_serve import CLUSTER, MODEL

CONFIG = compose("tiny", ["generate.slots=4", "generate.lanes=2"])
SHARDS = tuple(
    Shard(
        worker=name,
        start=start,
        stop=stop,
        digest="",
        control_address="",
        data_addresses=(),
        loaded=True,
        sent_files=0,
        sent_bytes=0,
    )
    for name, start, stop in (("a", 0, 12), ("b", 12, 24))
)
DEPLOYMENT = Deployment(
    key="",
    shards=SHARDS,
    boundaries=(Boundary(layer=11, wanted="raw", codec="raw"),),
    slots=4,
    context=2048,
    hidden_size=4096,
    vocab_size=1000,
    dtype="float16",
)


def generation(slower: float, wire_s: float = 0.0) -> Generation:
    """A run of one text in which worker b took `slower` times what its figures say, and each hop `wire_s` more."""
    text = GeneratedText(
        prompt="",
        prompt_token_ids=(1,) * 100,
        token_ids=(1,) * 33,
        text="",
        finish_reason="length",
        ttft_s=1.0,
        decode_tokens_per_s=1.0,
    )
    found = simulate([replica(MODEL, CLUSTER, DEPLOYMENT, CONFIG)], requests([text]))
    workers = tuple(
        WorkerRange(
            name=shard.worker,
            start=shard.start,
            stop=shard.stop,
            times=tuple(
                StepTimes(
                    phase=phase,
                    steps=one.steps,
                    rows=one.rows / one.steps,
                    compute_s=one.compute_s / one.steps * (slower if shard.worker == "b" else 1.0),
                    encode_s=0.0,
                    wire_s=one.wire_s / one.steps,
                    decode_s=0.0,
                    queue_s=0.0,
                    bubble_s=0.0,
                )
                for phase, one in by_phase.items()
            ),
        )
        for shard, by_phase in zip(SHARDS, found.spent[0], strict=True)
    )
    extra_s = (slower - 1) * found.spent[0][1]["decode"].compute_s / 32 + 3 * wire_s
    (served,) = found.served
    text = replace(text, ttft_s=served.ttft_s, decode_tokens_per_s=1 / (served.token_s + extra_s))
    return Generation(requests=(text,), links=(), workers=workers)


def accuracy(run: Generation) -> Accuracy:
    found = compare(MODEL, CLUSTER, DEPLOYMENT, run, CONFIG)
    assert found is not None
    return found


def test_a_run_that_went_as_predicted() -> None:
    found = accuracy(generation(1.0))
    assert found.step_predicted_s == pytest.approx(found.step_measured_s)
    assert found.ttft_predicted_s == pytest.approx(found.ttft_measured_s)
    for stage in found.stages:
        assert stage.compute_predicted_s == pytest.approx(stage.compute_measured_s)
    assert {(stage.worker, stage.phase) for stage in found.stages} == {
        (name, phase) for name in "ab" for phase in ("prefill", "decode")
    }


def test_the_next_prediction_knows_what_the_run_took() -> None:
    run = generation(1.5, wire_s=0.0004)
    before = accuracy(run)
    known = learnt(CLUSTER, {}, before)
    assert (known["a"].decode, known["b"].decode) == pytest.approx((1.0, 1.5))
    after = compare(MODEL, calibrated(CLUSTER, known), DEPLOYMENT, run, CONFIG)
    assert after is not None
    assert before.step_predicted_s < 0.9 * before.step_measured_s
    assert after.step_predicted_s == pytest.approx(after.step_measured_s, rel=1e-3)


def test_later_runs_move_what_is_known_by_less() -> None:
    known = {"b": WorkerCalibration(decode=1.0, prefill=1.0, runs=3)}
    assert learnt(CLUSTER, known, accuracy(generation(1.44)))["b"].decode == pytest.approx(1.2)


def test_a_run_of_drafts_is_not_compared() -> None:
    run = generation(1.0)
    drafted = replace(run, requests=(replace(run.requests[0], drafted_tokens=4),))
    assert compare(MODEL, CLUSTER, DEPLOYMENT, drafted, CONFIG) is None


def test_the_table_says_both() -> None:
    text = predicted(accuracy(generation(1.5)))
    assert "compute" in text.splitlines()[0]
    assert "b decode" in text
