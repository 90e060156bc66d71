"""Worker processes on loopback, each with a store of its own, ready to be used."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.processes import ROOT, WorkerProcess, stop_worker


@dataclass(frozen=True, slots=True)
class Worker:
    control: str
    data: tuple[str, int]


@contextmanager
def running_worker(
    name: str, store: Path, *, cluster: str = "test", protocol_version: int | None = None
) -> Iterator[Worker]:
    """A hyperlane-worker, if asked for of another protocol version."""
    setup = f"import hyperlane; hyperlane.PROTOCOL_VERSION = {protocol_version}; " if protocol_version else ""
    code = setup + "import sys; from hyperlane.worker.__main__ import main; sys.exit(main())"
    options = ["--name", name, "--cluster", cluster, "--store", str(store), "--threads", "1"]
    popen = subprocess.Popen(
        [sys.executable, "-c", code, *options],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process = WorkerProcess(popen)
    threading.Thread(target=process.read, daemon=True).start()
    try:
        process.wait_ready()
        yield Worker(f"127.0.0.1:{process.port('control')}", ("127.0.0.1", process.port("data")))
    finally:
        stop_worker(process)
