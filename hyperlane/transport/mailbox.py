"""A bounded queue between threads that can be closed from either side."""

from collections import deque
from collections.abc import Callable
from threading import Condition
from typing import Generic, TypeVar

from hyperlane.errors import TransportError

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Holds at most `depth` items."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._items: deque[T] = deque()
        self._changed = Condition()
        self._closed_why = ""

    def put(self, item: T, timeout_s: float | None) -> None:
        """Wait for room. Raises TimeoutError, and TransportError once closed."""
        with self._changed:
            self._wait(lambda: len(self._items) < self._depth, timeout_s)
            self._require_open()
            self._items.append(item)
            self._changed.notify_all()

    def first(self, timeout_s: float | None) -> T:
        """Wait for an item, which stays first until `drop_first`. Raises as `put`."""
        with self._changed:
            self._wait(lambda: bool(self._items), timeout_s)
            self._require_open()
            return self._items[0]

    def drop_first(self) -> None:
        with self._changed:
            self._items.popleft()
            self._changed.notify_all()

    def take(self, timeout_s: float | None) -> T:
        """Wait for an item and remove it, for a single reader. Raises as `put`."""
        item = self.first(timeout_s)
        self.drop_first()
        return item

    @property
    def holds_any(self) -> bool:
        return bool(self._items)

    def wait_empty(self, timeout_s: float) -> None:
        """Raises as `put`."""
        with self._changed:
            self._wait(lambda: not self._items, timeout_s)
            if self._items:
                self._require_open()

    def close(self, why: str) -> None:
        """Wake everyone; the first reason counts."""
        with self._changed:
            self._closed_why = self._closed_why or why
            self._changed.notify_all()

    def _wait(self, is_ready: Callable[[], bool], timeout_s: float | None) -> None:
        if not self._changed.wait_for(lambda: is_ready() or self._closed_why, timeout_s):
            raise TimeoutError(f"nothing changed in {timeout_s} s")

    def _require_open(self) -> None:
        if self._closed_why:
            raise TransportError(self._closed_why)
