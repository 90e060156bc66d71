"""One step of ExecutePipeline on one shard. A failure becomes an error step, which the chain passes on."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hyperlane.control.types import Candidates, Step
from hyperlane.errors import HyperlaneError, WorkerError, one_line
from hyperlane.transport.calibrate import kl_divergence
from hyperlane.transport.frame import WANT_LOGITS
from hyperlane.worker.gpu import on_host
from hyperlane.worker.parts import Session, StepResult

COMPARED_ROWS = 16
"""So many rows of logits at a time become FP64, of which several copies are made."""


def run_step(step: Step, session: Session, epoch: int, worker: str) -> Step:
    """The step after this shard: hidden rows, or the last shard's candidates or logits."""
    if step.error is not None:
        return step
    try:
        return _run(step, session, epoch)
    except HyperlaneError as error:
        return replace(step, tokens_R=None, hidden_RD=None, error=f"worker {worker}: {one_line(error)}")


def compared(answers: Iterable[Step]) -> Iterator[NDArray[np.float64]]:
    """For each two answers with logits: KL(first || second) of each row, in nats. WorkerError where one failed."""
    logits = (_logits_of(answer) for answer in answers)
    for exact_NV, coded_NV in zip(logits, logits, strict=True):
        blocks = range(0, len(exact_NV), COMPARED_ROWS)
        yield np.concatenate(
            [kl_divergence(exact_NV[at : at + COMPARED_ROWS], coded_NV[at : at + COMPARED_ROWS]) for at in blocks]
        )


def _logits_of(answer: Step) -> NDArray[np.float32]:
    if answer.error is not None:
        raise WorkerError(answer.error)
    if answer.logits_NV is None:
        raise WorkerError(f"step {answer.step} gave no logits; compare on the last shard, with whole rows wanted")
    return answer.logits_NV


def _run(step: Step, session: Session, epoch: int) -> Step:
    if step.epoch != epoch:
        raise WorkerError(f"step {step.step} is of epoch {step.epoch}, the chain of {epoch}; send that epoch")
    rows = step.hidden_RD if step.tokens_R is None else step.tokens_R.astype(np.int64)
    if rows is None:
        raise WorkerError(f"step {step.step} carries neither tokens nor hidden states")
    if len(rows) != sum(run.count for run in step.runs):
        raise WorkerError(f"step {step.step} has {len(rows)} rows, its runs {sum(r.count for r in step.runs)}")
    result = session.run(step.runs, rows, bool(step.flags & WANT_LOGITS))
    return _answer(step, result)


def _answer(step: Step, result: StepResult) -> Step:
    computed = replace(step, tokens_R=None, hidden_RD=None)
    if result.hidden_RD is not None:
        return replace(computed, hidden_RD=on_host(result.hidden_RD))
    if result.logits_NV is not None:
        return replace(computed, logits_NV=result.logits_NV)
    assert result.ids_NK is not None
    assert result.logits_NK is not None
    assert result.logsumexp_N is not None
    candidates = Candidates(
        ids_NK=result.ids_NK.astype(np.int32), logits_NK=result.logits_NK, logsumexp_N=result.logsumexp_N
    )
    return replace(computed, candidates=candidates)
