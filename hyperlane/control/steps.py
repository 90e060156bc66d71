"""Between the protobuf Step of ExecutePipeline and the plain one of control/types.py."""

from typing import Any

import numpy as np

from hyperlane.control import worker_pb2 as pb
from hyperlane.control.messages import tensor_from_message, tensor_to_message
from hyperlane.control.types import Candidates, Step
from hyperlane.transport.frame import Run


def step_to_message(step: Step) -> Any:
    message = pb.Step(epoch=step.epoch, lane=step.lane, step=step.step, flags=step.flags)
    message.runs.extend(
        pb.Run(slot=run.slot, outputs=run.outputs, position=run.position, count=run.count) for run in step.runs
    )
    if step.error is not None:
        message.error = step.error
    elif step.tokens_R is not None:
        message.tokens.ids.extend(step.tokens_R.tolist())
    elif step.hidden_RD is not None:
        message.hidden.CopyFrom(tensor_to_message(step.hidden_RD))
    elif step.logits_NV is not None:
        message.logits.CopyFrom(tensor_to_message(step.logits_NV))
    elif step.candidates is not None:
        message.candidates.CopyFrom(_candidates_to_message(step.candidates))
    return message


def step_from_message(message: Any) -> Step:
    """Raises ValueError where the payload is missing or its sizes do not agree."""
    head = {
        "epoch": message.epoch,
        "lane": message.lane,
        "step": message.step,
        "flags": message.flags,
        "runs": tuple(Run(run.slot, run.outputs, run.position, run.count) for run in message.runs),
    }
    match message.WhichOneof("payload"):
        case "error":
            return Step(**head, error=message.error)
        case "tokens":
            return Step(**head, tokens_R=np.array(message.tokens.ids, np.int32))
        case "hidden":
            return Step(**head, hidden_RD=tensor_from_message(message.hidden))
        case "logits":
            return Step(**head, logits_NV=tensor_from_message(message.logits))
        case "candidates":
            return Step(**head, candidates=_candidates_from_message(message.candidates))
    raise ValueError(f"step {message.step} carries no payload; send tokens or hidden states")


def _candidates_to_message(candidates: Candidates) -> Any:
    return pb.Candidates(
        width=candidates.ids_NK.shape[1],
        ids=candidates.ids_NK.ravel().tolist(),
        logits=candidates.logits_NK.ravel().tolist(),
        logsumexp=candidates.logsumexp_N.tolist(),
    )


def _candidates_from_message(message: Any) -> Candidates:
    shape = (len(message.logsumexp), message.width)
    return Candidates(
        ids_NK=np.array(message.ids, np.int32).reshape(shape),
        logits_NK=np.array(message.logits, np.float32).reshape(shape),
        logsumexp_N=np.array(message.logsumexp, np.float32),
    )
