"""Decoding and sending beside the compute, in a second thread, where a core is free for it.

A step changes threads only where another one waits already: a lone stream, which waits for each step's result,
pays nothing for it.
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Protocol

from hyperlane.worker.work import Work

MOST_SENDING = 2
"""Results that may wait to be sent: more would only hide a slow link."""


class Stages(Protocol):
    """The stages of a step. Each is called by one thread at a time, in the order of the steps."""

    def ready(self) -> bool: ...

    def receive(self) -> Work | None: ...

    def decode(self, work: Work) -> None: ...

    def compute(self, work: Work) -> None: ...

    def send(self, work: Work) -> None: ...


def overlapped(stages: Stages, stop: Event) -> None:
    """Run steps until `stop` is set. Raises what a stage raises."""
    sending: deque[Future[None]] = deque()
    ahead: Future[Work | None] | None = None
    with ThreadPoolExecutor(1, "hyperlane-overlap") as aside:
        while not stop.is_set():
            work = _decoded(stages) if ahead is None else ahead.result()
            ahead = None
            if work is None:
                continue
            if stages.ready():
                ahead = aside.submit(_decoded, stages)
            stages.compute(work)
            _settle(sending, MOST_SENDING - 1)
            if ahead is not None or sending or stages.ready():
                sending.append(aside.submit(stages.send, work))
            else:
                stages.send(work)
        _settle(sending, 0)


def _decoded(stages: Stages) -> Work | None:
    work = stages.receive()
    if work is not None:
        stages.decode(work)
    return work


def _settle(sending: deque[Future[None]], most: int) -> None:
    """Forget what is sent, wait until at most so many are not."""
    while sending and (sending[0].done() or len(sending) > most):
        sending.popleft().result()
