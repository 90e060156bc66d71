"""The loop of generation: send what the scheduler has, take what the chain returns, choose the next tokens."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hyperlane.artifacts import GeneratedText
from hyperlane.errors import TablesError
from hyperlane.generate.sampling import Sampling, sample
from hyperlane.generate.scheduler import Scheduler, Step
from hyperlane.generate.stream import StopStrings

CANDIDATES = 64
"""How many of the largest logits the last worker returns for a row."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request: `index` names it within the run, and keys its random draws."""

    index: int
    text: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a text ends, besides its own end token."""

    max_new_tokens: int
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True)
class Rows:
    """What the last worker returned for a step: N rows of candidates, or of the whole vocabulary."""

    ids_NK: NDArray[np.int64]
    logits_NK: NDArray[np.float32]


class StepChain(Protocol):
    """The chain of workers as the engine sees it. Steps come back in the order in which they were sent."""

    def send(self, step: Step, *, whole_rows: bool) -> None: ...

    def receive(self, step: Step, check: Callable[[], None]) -> Rows: ...

    def rewire(self, mismatch: TablesError) -> None:
        """Begin anew without the tables that a receiver lacks; what was in flight does not come back."""


class TokenDecoder(Protocol):
    """Token ids of one text -> its characters, as soon as they are complete."""

    def push(self, token_id: int) -> str: ...

    def finish(self) -> str: ...


@dataclass(slots=True)
class _Text:
    """One request while it is being generated."""

    prompt: Prompt
    limit: int
    decoder: TokenDecoder
    stops: StopStrings
    started_s: float
    token_ids: list[int] = field(default_factory=list)
    first_s: float = 0.0
    last_s: float = 0.0
    finish_reason: str | None = None


@dataclass(slots=True)
class Engine:
    """Lives as long as its chain. A cancelled run leaves steps in flight; the next run drops their results."""

    chain: StepChain
    scheduler: Scheduler
    sampling: Sampling
    limits: Limits
    stop_ids: frozenset[int]
    open_decoder: Callable[[], TokenDecoder]
    _texts: dict[int, _Text] = field(default_factory=dict)  # by request number, unique over all runs
    _requests: int = 0
    _sent: deque[Step] = field(default_factory=deque)

    def run(
        self, prompts: Sequence[Prompt], on_text: Callable[[int, str], None], check: Callable[[], None]
    ) -> tuple[GeneratedText, ...]:
        """Generate for all prompts; `on_text(index, piece)` as text comes, `check()` often: it may raise to cancel."""
        requests = [self._submit(prompt) for prompt in prompts]
        whole_rows = self.sampling.needs_whole_row(CANDIDATES)
        try:
            while not self.scheduler.idle:
                try:
                    self._turn(whole_rows, on_text, check)
                except TablesError as mismatch:
                    self.chain.rewire(mismatch)
                    self._resume()
            return tuple(_outcome(self._texts[request]) for request in requests)
        finally:
            for request in requests:
                self.scheduler.cancel(request)
                self._texts.pop(request, None)

    def _turn(self, whole_rows: bool, on_text: Callable[[int, str], None], check: Callable[[], None]) -> None:
        """Send what is ready, then take one result."""
        while (step := self.scheduler.next_step()) is not None:
            self.chain.send(step, whole_rows=whole_rows)
            self._sent.append(step)
        rows = self.chain.receive(self._sent[0], check)
        step = self._sent.popleft()
        tokens = [self._next(request, row, rows, on_text) for row, request in enumerate(step.targets)]
        self.scheduler.complete(step, tokens)

    def _resume(self) -> None:
        """Forget what is in flight; unfinished texts are prefilled again as far as they got, and go on."""
        while self._sent:
            step = self._sent.popleft()
            self.scheduler.complete(step, [None] * len(step.targets))
        for request, text in self._texts.items():
            self.scheduler.cancel(request)
            if text.finish_reason is None:
                self.scheduler.submit(request, (*text.prompt.token_ids, *text.token_ids))

    def _submit(self, prompt: Prompt) -> int:
        self._requests += 1
        self.scheduler.submit(self._requests, prompt.token_ids)
        self._texts[self._requests] = self._begin(prompt)
        return self._requests

    def _begin(self, prompt: Prompt) -> _Text:
        room = self.scheduler.context - len(prompt.token_ids)
        return _Text(
            prompt=prompt,
            limit=min(self.limits.max_new_tokens, room),
            decoder=self.open_decoder(),
            stops=StopStrings(self.limits.stop),
            started_s=time.perf_counter(),
        )

    def _next(self, request: int, row: int, rows: Rows, on_text: Callable[[int, str], None]) -> int | None:
        """Choose a request's next token from its row; None once the text is finished or forgotten."""
        text = self._texts.get(request)
        if text is None:
            return None
        prompt = text.prompt
        penalized = self.sampling.repetition_penalty != 1.0
        token_id = sample(
            rows.ids_NK[row],
            rows.logits_NK[row],
            self.sampling,
            request=prompt.index,
            position=len(prompt.token_ids) + len(text.token_ids),
            seen=(*prompt.token_ids, *text.token_ids) if penalized else (),
        )
        piece = self._take(text, token_id)
        if piece:
            on_text(prompt.index, piece)
        return None if text.finish_reason else token_id

    def _take(self, text: _Text, token_id: int) -> str:
        """Append a token; returns the characters that it releases and sets `finish_reason` at the end."""
        text.last_s = time.perf_counter()
        text.first_s = text.first_s or text.last_s
        text.token_ids.append(token_id)
        if token_id in self.stop_ids and not self.limits.ignore_eos:
            text.finish_reason = "stop"
            return text.stops.push(text.decoder.finish()) + text.stops.finish()
        piece = text.stops.push(text.decoder.push(token_id))
        if text.stops.stopped:
            text.finish_reason = "stop"
        elif len(text.token_ids) >= text.limit:
            text.finish_reason = "length"
            piece += text.stops.push(text.decoder.finish()) + text.stops.finish()
        return piece


def _outcome(text: _Text) -> GeneratedText:
    decode_s = text.last_s - text.first_s
    return GeneratedText(
        prompt=text.prompt.text,
        prompt_token_ids=text.prompt.token_ids,
        token_ids=tuple(text.token_ids),
        text=text.stops.text,
        finish_reason=text.finish_reason or "length",
        ttft_s=text.first_s - text.started_s,
        decode_tokens_per_s=(len(text.token_ids) - 1) / decode_s if decode_s > 0 else 0.0,
    )
