"""The answer to a step's candidates, sent the moment they come: each row's greedy token goes into the next step.

Workers wait meanwhile, so the native link does it before Python sees the frame (csrc/transport/answer.cpp).
"""

import time
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from hyperlane.errors import TransportError
from hyperlane.transport.candidates import candidates_of, greedy
from hyperlane.transport.frame import Frame, Kind


class Sends(Protocol):
    """A link's Sender."""

    def send(self, frame: Frame, timeout_s: float) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """To the candidates of `step`: `frame`, of kind TOKENS, still without its tokens, one for each of its rows."""

    sender: Sends
    step: int
    frame: Frame
    stop_ids: frozenset[int]


class Answered(NamedTuple):
    """What was sent, one token a row, and when that began and ended."""

    tokens: list[int]
    sending_ns: int
    sent_ns: int


def reply(answer: Answer, frame: Frame) -> Frame | None:
    """What to send now that `frame` came; None where it is not what is answered, or a token is a stop token."""
    due, found = (answer.frame.epoch, answer.step, answer.frame.rows), (frame.epoch, frame.step, frame.rows)
    if frame.kind != Kind.CANDIDATES or found != due:
        return None
    tokens = greedy(*candidates_of(frame))
    if not answer.stop_ids.isdisjoint(tokens):
        return None
    return answer.frame._replace(payload=np.array(tokens, "<i4").tobytes())


def send_reply(answer: Answer, frame: Frame) -> Answered | None:
    """Send what `reply` gives. None where it gives nothing, and where the link has no room or is broken."""
    sending_ns, replying = time.monotonic_ns(), reply(answer, frame)
    if replying is None:
        return None
    try:
        answer.sender.send(replying, timeout_s=0)
    except (TimeoutError, TransportError):  # whoever sends by itself will be told
        return None
    return Answered(np.frombuffer(replying.payload, "<i4").tolist(), sending_ns, time.monotonic_ns())
