"""One request's answer as it grows: tokens first, its characters when there is time for them."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from hyperlane.generate.sampling import Sampling
from hyperlane.generate.stream import StopStrings


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


class TokenDecoder(Protocol):
    """Token ids of one text -> its characters, as soon as they are complete."""

    def push(self, token_id: int) -> str: ...

    def finish(self) -> str: ...


@dataclass(slots=True, kw_only=True, eq=False)
class Text:
    """`take` tokens as they are chosen, then `show` what they say; only stop strings need the characters at once."""

    prompt: Prompt
    sampling: Sampling
    limits: Limits
    most: int  # new tokens
    stop_ids: frozenset[int]
    decoder: TokenDecoder
    on_text: Callable[[int, str], None]
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    started_s: float = field(default_factory=time.perf_counter)
    first_s: float = 0.0
    last_s: float = 0.0
    _stops: StopStrings = field(init=False)
    _decoded: int = 0
    _unshown: str = ""

    def __post_init__(self) -> None:
        self._stops = StopStrings(self.limits.stop)

    @property
    def text(self) -> str:
        return self._stops.text

    def take(self, token_id: int) -> bool:
        """Append a token; False where the text ends with it."""
        self.last_s = time.perf_counter()
        self.first_s = self.first_s or self.last_s
        self.token_ids.append(token_id)
        if self._ends_with(token_id):
            self.finish_reason = "stop"
        elif len(self.token_ids) >= self.most:
            self.finish_reason = "length"
        return self.finish_reason is None

    def show(self) -> None:
        """Hand on the characters that are complete, and may not turn out to begin a stop string."""
        self._decode()
        if self.finish_reason is not None:
            self._unshown += self._stops.push(self.decoder.finish()) + self._stops.finish()
        piece, self._unshown = self._unshown, ""
        if piece:
            self.on_text(self.prompt.index, piece)

    def _ends_with(self, token_id: int) -> bool:
        if token_id in self.stop_ids and not self.limits.ignore_eos:
            return True
        if self.limits.stop:
            self._decode()
        return self._stops.stopped

    def _decode(self) -> None:
        """All tokens but one that ended the text."""
        for token_id in self.token_ids[self._decoded :]:
            if token_id not in self.stop_ids or self.limits.ignore_eos:
                self._unshown += self._stops.push(self.decoder.push(token_id))
        self._decoded = len(self.token_ids)
