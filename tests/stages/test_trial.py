"""The self-test on a real model: it admits int4 after layer 15, and refuses a bad codec."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from hyperlane.control.types import Step
from hyperlane.errors import ModelError, WorkerError
from hyperlane.generate.tokenizer import Tokenizer
from hyperlane.stages.selftest import split
from hyperlane.stages.trial import CHUNK_BYTES, Shard, Sizes, Trial
from hyperlane.transport.calibrate import CALIBRATION_TEXT
from hyperlane.transport.ladder import ERROR_BUDGET, settle
from hyperlane.worker.execute import compared, run_step
from hyperlane.worker.session import Session
from tests.fixtures_model import Exported


def shard_of(session: Session) -> Shard:
    def shard(steps: Iterable[Step]) -> Iterator[Step]:
        return (run_step(step, session, 0, "w") for step in steps)

    return shard


def begin(model: Exported, bounds: Sequence[int], *, context: int, slots: int, prefill_chunk: int = 256) -> Trial:
    token_ids = Tokenizer.load(model.checkpoint).encode(CALIBRATION_TEXT.read_text())
    calibration, test = split(token_ids)
    vocabulary = model.manifest.vocab_size
    sizes = Sizes.of(context=context, slots=slots, prefill_chunk=prefill_chunk, widest=vocabulary, epoch=0)
    *shards, last = [shard_of(session) for session in model.chain(*bounds, slots=slots, context=context).shards]
    return Trial.begin(shards, lambda pairs: compared(last(pairs)), sizes, calibration=calibration[:1024], test=test)


@pytest.fixture(scope="module")
def trial(smollm2: Exported) -> Trial:
    return begin(smollm2, (0, 16, 30), context=512, slots=2)


def test_int4_is_admitted_after_layer_15(trial: Trial) -> None:
    settled = settle("int4", [15], trial.error_of, trial.kl_of)
    assert [rung.codec for rung in settled.rungs] == ["int4"]
    assert 0.001 < settled.rungs[0].relative_error < ERROR_BUDGET
    assert 0.001 < settled.kl < 0.01


def test_plain_int4_is_refused(trial: Trial) -> None:
    settled = settle("int4_plain", [15], trial.error_of, trial.kl_of)
    assert [rung.codec for rung in settled.rungs] == ["h8"]
    (why,) = settled.rungs[0].refused
    assert why.startswith("int4_plain refused after layer 15: relative error")
    assert settled.kl < 0.0002


def test_one_slot_and_short_contexts_measure_the_same_codec(tiny: Exported) -> None:
    bounds = (0, 1, 3, 4)
    usual = begin(tiny, bounds, context=64, slots=2, prefill_chunk=48)
    lone = begin(tiny, bounds, context=64, slots=1)
    for boundary in (0, 1):
        assert lone.error_of(boundary, "h8") == pytest.approx(usual.error_of(boundary, "h8"), rel=1e-3)
    assert lone.kl_of(("h8", "h8")) == pytest.approx(usual.kl_of(("h8", "h8")), rel=0.01)
    assert lone.kl_of(("raw", "raw")) == pytest.approx(0, abs=1e-9)


def test_the_logits_of_a_step_stay_small() -> None:
    sizes = Sizes.of(context=4096, slots=4, prefill_chunk=512, widest=128_256, epoch=3)
    assert sizes.chunk_tokens * 128_256 * 4 <= CHUNK_BYTES
    assert (sizes.piece_tokens, sizes.epoch) == (512, 3)
    assert Sizes.of(context=4096, slots=1, prefill_chunk=512, widest=128_256, epoch=3).piece_tokens == 65


def test_a_model_that_computes_nothing_finite_is_told() -> None:
    def broken(steps: Iterable[Step]) -> Iterator[Step]:
        for step in steps:
            rows = sum(run.count for run in step.runs)
            yield replace(step, tokens_R=None, hidden_RD=np.full((rows, 64), np.nan, np.float32))

    sizes = Sizes.of(context=64, slots=2, prefill_chunk=32, widest=64, epoch=0)
    with pytest.raises(ModelError, match="use transport/codec=raw"):
        Trial.begin([broken], compared, sizes, calibration=range(70), test=range(10))


def test_a_worker_that_fails_ends_the_self_test() -> None:
    def failing(steps: Iterable[Step]) -> Iterator[Step]:
        return (replace(step, tokens_R=None, error="worker w1: out of memory") for step in steps)

    sizes = Sizes.of(context=64, slots=2, prefill_chunk=32, widest=64, epoch=0)
    with pytest.raises(WorkerError, match="the self-test failed: worker w1: out of memory"):
        Trial.begin([failing], compared, sizes, calibration=range(70), test=range(10))
