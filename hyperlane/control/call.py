"""A call in flight: wait for it in a thread (`result`), or in trio (`await`), where cancellation ends it."""

import contextlib
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

import grpc
import trio

from hyperlane.errors import HyperlaneError

T = TypeVar("T")


class Call(Generic[T]):
    """Wraps a gRPC future; `read` turns the reply into plain data, `explain` a gRPC error into ours."""

    def __init__(self, future: Any, read: Callable[[Any], T], explain: Callable[[Exception], HyperlaneError]) -> None:
        self._future = future
        self._read = read
        self._explain = explain

    def result(self) -> T:
        """Wait in this thread. The call has a deadline, so the wait has one too."""
        try:
            return self._read(self._future.result())
        except (grpc.RpcError, grpc.FutureCancelledError) as error:
            raise self._explain(error) from error

    def cancel(self) -> None:
        """End the call; a no-op once it is done."""
        self._future.cancel()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._wait().__await__()

    async def _wait(self) -> T:
        done, token = trio.Event(), trio.lowlevel.current_trio_token()

        def wake(_: Any) -> None:
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(done.set)

        self._future.add_done_callback(wake)
        try:
            await done.wait()
        finally:
            self.cancel()
        return self.result()
