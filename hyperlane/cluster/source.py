"""Where workers come from: each choice of the config group `cluster` is a `ClusterSource`."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hyperlane.artifacts import Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a source of workers must know of the run."""

    store_root: Path  # local workers share the coordinator's layer store
    log_folder: Path | None = None  # local workers write NAME.log here


class Finder(Protocol):
    async def find(self) -> Cluster:
        """The usable workers, by name, and those rejected. Raises ClusterError if none is usable."""
        ...


class ClusterSource(Protocol):
    snapshot: str | None  # a recorded cluster.json to plan with, instead of probing

    def open(self, surroundings: Surroundings) -> AbstractAsyncContextManager[Finder]:
        """Workers that the source starts live until the context closes."""
        ...
