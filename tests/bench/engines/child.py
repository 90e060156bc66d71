"""A peer in one process of its own, with two threads: it answers `decode STREAMS TOKENS` and `first TOKENS`."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from tests.bench.engines.engine import MissingError, peak_bytes
from tests.bench.engines.ours import ROOT

READY = "ready"


class Loaded(Protocol):
    """What a peer's module has as `load()`; MissingError where it cannot."""

    def decode_per_s(self, streams: int, new_tokens: int) -> float: ...

    def first_token_s(self, prompt_tokens: int) -> float: ...


class ChildEngine:
    """The side of the bench."""

    def __init__(self, name: str, process: "subprocess.Popen[str]") -> None:
        self.name = name
        self._process = process

    @classmethod
    @contextmanager
    def open(cls, name: str, module: str) -> "Iterator[ChildEngine]":
        command = [sys.executable, "-m", "tests.bench.engines.child", module]
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            answer = process.stdout.readline().strip()
            if answer != READY:
                raise MissingError(answer or f"{name} does not load; see above")
            yield cls(name, process)

    def decode_per_s(self, streams: int, new_tokens: int) -> float:
        return self._ask(f"decode {streams} {new_tokens}")

    def first_token_s(self, prompt_tokens: int) -> float:
        return self._ask(f"first {prompt_tokens}")

    def peak_bytes(self) -> list[int]:
        return [peak_bytes(self._process.pid)]

    def _ask(self, line: str) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())


def main(module: str) -> None:
    try:
        loaded: Loaded = importlib.import_module(f"tests.bench.engines.{module}").load()
    except MissingError as missing:
        print(missing, flush=True)
        return
    print(READY, flush=True)
    for line in sys.stdin:
        what, *numbers = line.split()
        ask = loaded.decode_per_s if what == "decode" else loaded.first_token_s
        print(ask(*map(int, numbers)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
