"""Text as it comes: stop strings are cut off, and no text is shown that could still turn out to begin one."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class StopStrings:
    """Feed pieces of text; what is released never holds a stop string, nor the beginning of one."""

    stops: Sequence[str]
    text: str = ""  # all that was released
    stopped: bool = False
    _held: str = field(default="")

    def push(self, piece: str) -> str:
        """Take a piece in; returns what may be shown now."""
        if self.stopped:
            return ""
        self._held += piece
        found = [self._held.find(stop) for stop in self.stops if stop and stop in self._held]
        if found:
            self.stopped = True
            return self._release(min(found), drop_rest=True)
        return self._release(len(self._held) - self._possible_start())

    def finish(self) -> str:
        """No more text comes: the rest may be shown."""
        return "" if self.stopped else self._release(len(self._held))

    def _possible_start(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        ends = (
            size
            for stop in self.stops
            for size in range(min(len(stop) - 1, len(self._held)), 0, -1)
            if self._held.endswith(stop[:size])
        )
        return max(ends, default=0)

    def _release(self, count: int, *, drop_rest: bool = False) -> str:
        shown, self._held = self._held[:count], "" if drop_rest else self._held[count:]
        self.text += shown
        return shown
