"""The loop of generation: send what the scheduler has, take what the chain returns, choose the next tokens.

One thread drives an engine, by `run` or `serve`; any thread may submit and cancel meanwhile.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hyperlane.artifacts import GeneratedText
from hyperlane.errors import HyperlaneError, RequestError, StepError, TablesError
from hyperlane.generate.sampling import Sampling, sample
from hyperlane.generate.scheduler import Account, Draw, Scheduler, Shape, check_length
from hyperlane.generate.step import Following, Step, Use
from hyperlane.generate.text import Limits, Prompt, Text, TokenDecoder
from hyperlane.transport.candidates import greedy

CANDIDATES = 64
"""How many of the largest logits the last worker returns for a row."""
WAKE_S = 0.01
"""How often an engine that waits for a result looks for new requests: a worker may be free for them."""
IDLE_S = 0.2


@dataclass(frozen=True, slots=True)
class Rows:
    """What the last worker returned for a step: N rows of candidates, or of the whole vocabulary."""

    ids_NK: NDArray[np.int64]
    logits_NK: NDArray[np.float32]
    answered: list[int] | None = None  # each row's token, where the step that follows was sent with them


class StepChain(Protocol):
    """The chain of workers as the engine sees it. Steps come back in the order in which they were sent."""

    def send(self, step: Step, *, whole_rows: bool) -> None: ...

    def receive(self, step: Step, timeout_s: float, following: Following | None) -> Rows:
        """The result of `step`; what follows may be sent by itself meanwhile.

        Raises TimeoutError, StepError where a worker could not compute it, and other errors for a broken chain.
        """

    def rewire(self, mismatch: TablesError) -> None:
        """Begin anew without the tables that a receiver lacks; what was in flight does not come back."""


class Mover(Protocol):
    """May put other workers or layers in the chain's place between two steps."""

    def observe(self, step: Step) -> None:
        """A step whose result came."""

    def turn(self) -> Shape | None:
        """The shape of the chain that took the old one's place; what was in flight does not come back."""

    def mend(self, error: HyperlaneError) -> Shape | None:
        """The same after the chain broke; None where it stays broken."""


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """A request that was submitted."""

    number: int
    text: Text
    outcome: "Future[GeneratedText]"
    _cancel: Callable[[int], None]

    def result(self, timeout_s: float | None = None) -> GeneratedText:
        """Wait for the end. Raises what went wrong, TimeoutError where it takes longer."""
        return self.outcome.result(timeout_s)

    def cancel(self) -> None:
        """End it where it is, with the finish reason "cancelled"; nothing happens where it is over."""
        self._cancel(self.number)


@dataclass(slots=True, kw_only=True)
class Engine:
    """Lives as long as its chain. A cancelled run leaves steps in flight; the next run drops their results."""

    chain: StepChain
    scheduler: Scheduler
    sampling: Sampling
    limits: Limits
    stop_ids: frozenset[int]
    open_decoder: Callable[[], TokenDecoder]
    queue: int = 256  # requests that may wait for a slot
    mover: Mover | None = None
    _tickets: dict[int, Ticket] = field(default_factory=dict)  # of requests in the scheduler
    _whole: set[int] = field(default_factory=set)  # of those, which need whole rows
    _sent: deque[Step] = field(default_factory=deque)
    _alone_s: float | None = None  # when the only step in the chain was sent
    _fresh: dict[int, Ticket] = field(default_factory=dict)  # have tokens that nobody was shown
    _ended: list[Account] = field(default_factory=list)
    _changed: Condition = field(default_factory=Condition)  # guards what follows
    _arrived: deque[Ticket] = field(default_factory=deque)
    _cancelled: deque[int] = field(default_factory=deque)
    _requests: int = 0
    _closed: bool = False

    # --- from any thread -------------------------------------------------------------------------------------

    def submit(
        self,
        prompt: Prompt,
        on_text: Callable[[int, str], None] = lambda index, piece: None,
        *,
        sampling: Sampling | None = None,
        limits: Limits | None = None,
    ) -> Ticket:
        """Queue a request; `on_text(index, piece)` comes from the driving thread.

        RequestError where the prompt is empty or too long, or where the queue is full.
        """
        check_length(len(prompt.token_ids), self.scheduler.context)
        chosen = limits or self.limits
        text = Text(
            prompt=prompt,
            sampling=sampling or self.sampling,
            limits=chosen,
            most=min(chosen.max_new_tokens, self.scheduler.context - len(prompt.token_ids)),
            stop_ids=self.stop_ids,
            decoder=self.open_decoder(),
            on_text=on_text,
        )
        with self._changed:
            if self._closed:
                raise HyperlaneError("the engine is closed and takes no more requests")
            if self.full:
                raise RequestError(f"{self.queue} requests wait already; try again later, or raise generate.queue")
            self._requests += 1
            ticket = Ticket(self._requests, text, Future(), self._cancel)
            self._arrived.append(ticket)
            self._changed.notify()
        return ticket

    @property
    def full(self) -> bool:
        """Whether a request would be refused because too many wait."""
        return self.scheduler.waiting + len(self._arrived) >= self.queue

    def close(self) -> None:
        """End `serve`: requests under way fail."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _cancel(self, number: int) -> None:
        with self._changed:
            self._cancelled.append(number)
            self._changed.notify()

    # --- from the driving thread -----------------------------------------------------------------------------

    def run(
        self, prompts: Sequence[Prompt], on_text: Callable[[int, str], None], check: Callable[[], None]
    ) -> tuple[GeneratedText, ...]:
        """Generate for all prompts; `on_text(index, piece)` as text comes, `check()` often: it may raise to cancel."""
        tickets: list[Ticket] = []
        try:
            for prompt in prompts:
                while self.full:
                    self._turn(check)
                tickets.append(self.submit(prompt, on_text))
            for ticket in tickets:
                while not ticket.outcome.done():
                    self._turn(check)
                ticket.result()  # the first that failed ends the run
            return tuple([ticket.result() for ticket in tickets])
        finally:
            for ticket in tickets:
                ticket.cancel()
            self._take_in()

    def serve(self, check: Callable[[], None]) -> None:
        """Drive requests as they come, until `close`, or until `check()` raises."""
        try:
            while not self._closed:
                try:
                    self._turn(check)
                except HyperlaneError as error:  # of the chain; those to come may fare better
                    self._abandon(error)
                with self._changed:
                    self._changed.wait_for(self._has_work, IDLE_S)
        finally:
            self.close()
            self._abandon(HyperlaneError("the engine was closed before the text was complete"))

    def _has_work(self) -> bool:
        return bool(self._sent or self._arrived or self._cancelled or self._fresh or self._ended or self._closed)

    def _turn(self, check: Callable[[], None]) -> None:
        """Send what is ready, show what was chosen before, then take one result."""
        check()
        self._take_in()
        try:
            if self.mover is not None and not self.scheduler.idle and (shape := self.mover.turn()) is not None:
                self._begin_anew(shape)
            self._send()
            self._show()
            self._receive(check)
        except HyperlaneError as error:  # of the chain
            shape = None if self.mover is None else self.mover.mend(error)
            if shape is None:
                raise
            self._begin_anew(shape)

    def _send(self) -> None:
        while (step := self.scheduler.next_step()) is not None:
            whole = bool(self._whole) and any(owner.request in self._whole for owner in step.owners)
            self.chain.send(step, whole_rows=whole)
            self._alone_s = None if self._sent else time.perf_counter()
            self._sent.append(step)

    def _receive(self, check: Callable[[], None]) -> None:
        if not self._sent:
            return
        following = self._following(self._sent[0])
        try:
            rows = self._result(following, check)
            if rows is None:
                return
        except StepError as error:
            for account in self.scheduler.fail(self._sent.popleft()):
                self._resolve(account.request, error)
            return
        except TablesError as mismatch:
            self.chain.rewire(mismatch)
            self._begin_anew()
            return
        step = self._sent.popleft()
        self._observe(step)
        self._ended += self.scheduler.complete(step, self._draws(rows))
        if rows.answered is not None:
            assert following is not None
            self._sent.append(self._foreseen(following.step))

    def _result(self, following: Following | None, check: Callable[[], None]) -> Rows | None:
        """Of the step that was sent first; None where something else has to be looked at before it is there."""
        while True:
            try:
                return self.chain.receive(self._sent[0], WAKE_S, following)
            except TimeoutError:
                if self._arrived or self._cancelled or self._closed or self.mover is not None:
                    return None
                check()

    def _following(self, step: Step) -> Following | None:
        """What the chain may send as soon as the result of `step` comes; the workers wait no longer for Python then."""
        following = self.scheduler.following(step)
        if following is None:
            return None
        texts = [self._tickets[owner.request].text for owner in step.owners]
        if not all(text.sampling.is_greedy and not text.limits.stop for text in texts):
            return None
        ignored = all(text.limits.ignore_eos for text in texts)
        return Following(following, frozenset() if ignored else self.stop_ids)

    def _foreseen(self, following: Step) -> Step:
        """The scheduler's step, which was sent already."""
        step = self.scheduler.next_step()
        assert step is not None
        assert (step.number, step.runs, step.owners) == (following.number, following.runs, following.owners)
        return step

    def _begin_anew(self, shape: Shape | None = None) -> None:
        self._sent.clear()
        self.scheduler.restart(shape)

    def _take_in(self) -> None:
        if not self._arrived and not self._cancelled:
            return
        with self._changed:
            arrived, self._arrived = self._arrived, deque()
            cancelled, self._cancelled = self._cancelled, deque()
            for ticket in arrived:
                text = ticket.text
                self.scheduler.submit(ticket.number, text.prompt.token_ids, text.most)
                self._tickets[ticket.number] = ticket
                if text.sampling.needs_whole_row(CANDIDATES):
                    self._whole.add(ticket.number)
        for number in cancelled:
            account = self.scheduler.cancel(number)
            if account is not None:
                self._tickets[number].text.finish_reason = "cancelled"
                self._ended.append(account)
        if cancelled:
            self._show()

    def _draws(self, rows: Rows) -> Draw:
        chosen = rows.answered or []

        def draw(request: int, row: int) -> int | None:
            nonlocal chosen
            ticket = self._tickets[request]
            text = ticket.text
            if text.sampling.is_greedy:
                chosen = chosen or greedy(rows.ids_NK, rows.logits_NK)
                token_id = chosen[row]
            else:
                token_id = _sampled(text, rows, row)
            self._fresh[request] = ticket
            return token_id if text.take(token_id) else None

        return draw

    def _show(self) -> None:
        """After the next steps are on their way: characters of the tokens chosen before, and texts that are over."""
        for number, ticket in self._fresh.items():
            try:
                ticket.text.show()
            except Exception as error:  # whatever it is belongs to who reads this text
                self.scheduler.cancel(number)
                self._resolve(number, error)
        self._fresh.clear()
        for account in self._ended:
            self._resolve(account.request, account)
        self._ended.clear()

    def _resolve(self, number: int, how: Account | Exception) -> None:
        ticket = self._tickets.pop(number, None)
        self._whole.discard(number)
        if ticket is None:
            return
        if isinstance(how, Account):
            ticket.outcome.set_result(_outcome(ticket.text, how))
        else:
            ticket.outcome.set_exception(how)

    def _abandon(self, error: Exception) -> None:
        self._take_in()
        for number in list(self._tickets):
            self.scheduler.cancel(number)
            self._resolve(number, error)

    def _observe(self, step: Step) -> None:
        """Tell the speculation what a step took that was alone in the chain, and the mover that it came."""
        if self.mover is not None:
            self.mover.observe(step)
        drafts, begun_s = self.scheduler.drafts, self._alone_s
        if drafts is not None and begun_s is not None and step.use is Use.DECODE and len(step.runs) == 1:
            drafts.observe(step.runs[0].count, time.perf_counter() - begun_s)


def _sampled(text: Text, rows: Rows, row: int) -> int:
    prompt, sampling = text.prompt, text.sampling
    return sample(
        rows.ids_NK[row],
        rows.logits_NK[row],
        sampling,
        request=prompt.index,
        position=len(prompt.token_ids) + len(text.token_ids),
        seen=(*prompt.token_ids, *text.token_ids) if sampling.repetition_penalty != 1.0 else (),
    )


def _outcome(text: Text, account: Account) -> GeneratedText:
    decode_s = text.last_s - text.first_s
    return GeneratedText(
        prompt=text.prompt.text,
        prompt_token_ids=text.prompt.token_ids,
        token_ids=tuple(text.token_ids),
        text=text.text,
        finish_reason=text.finish_reason or "length",
        ttft_s=text.first_s - text.started_s if text.token_ids else 0.0,
        decode_tokens_per_s=(len(text.token_ids) - 1) / decode_s if decode_s > 0 else 0.0,
        cached_tokens=account.cached_tokens,
        drafted_tokens=account.drafted_tokens,
        accepted_tokens=account.accepted_tokens,
    )
