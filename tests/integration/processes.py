"""Worker processes for tests: started, watched by what they log, and always ended."""

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
READY = " is ready: "


@dataclass(slots=True)
class WorkerProcess:
    popen: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    _incoming: "queue.Queue[str | None]" = field(default_factory=queue.Queue)

    def wait_line(self, text: str, timeout_s: float) -> str:
        """The first line that holds `text`; fails after `timeout_s` or when the process ends."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                line = self._incoming.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {text!r} within {timeout_s} s in {self.lines}") from None
            if line is None:
                raise AssertionError(f"ended with {self.popen.wait()} before {text!r}: {self.lines}")
            self.lines.append(line)
            if text in line:
                return line

    def wait_ready(self, timeout_s: float = 15.0) -> "WorkerProcess":
        self.wait_line(READY, timeout_s)
        return self

    def port(self, which: str) -> int:
        """The control or data port of the line that says ready."""
        line = next(line for line in self.lines if READY in line)
        return int(line.partition(f"{which} ")[2].partition(":")[2].split(",")[0])

    def end(self, timeout_s: float = 10.0) -> tuple[int, str]:
        """Wait for the exit: its status, and everything that was logged."""
        status = self.popen.wait(timeout_s)
        while (line := self._incoming.get(timeout=timeout_s)) is not None:
            self.lines.append(line)
        return status, "\n".join(self.lines)

    def read(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            self._incoming.put(line.rstrip("\n"))
        self._incoming.put(None)


def start_worker(
    *options: str, namespace: str | None = None, before: Sequence[str] = (), env: dict[str, str] | None = None
) -> WorkerProcess:
    """`hyperlane-worker` with these options, in a network namespace if one is given, or behind other words."""
    inside = ["ip", "netns", "exec", namespace] if namespace else before
    command = [*inside, sys.executable, "-m", "hyperlane.worker", *options]
    popen = subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process = WorkerProcess(popen)
    threading.Thread(target=process.read, daemon=True).start()
    return process


def stop_worker(process: WorkerProcess) -> None:
    """The end of a test: whatever its state, nothing is left."""
    process.popen.terminate()
    try:
        process.popen.wait(10)
    except subprocess.TimeoutExpired:
        process.popen.kill()
        process.popen.wait(10)
    for stream in (process.popen.stdin, process.popen.stderr):
        if stream is not None:
            stream.close()
