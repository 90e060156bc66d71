"""The command line as a user runs it: a process of its own, its output, its exit code."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def folder(self) -> Path:
        """The run's folder, which the last line names."""
        assert self.code == 0, self.err
        last = self.out.strip().splitlines()[-1]
        assert last.startswith("run: "), self
        return Path(last.removeprefix("run: "))

    def artifact(self, stage: str, file: str) -> Any:
        return json.loads((self.folder / stage / file).read_text())

    @property
    def generation(self) -> Any:
        return self.artifact("generate", "generation.json")


def environment(store: Path) -> dict[str, str]:
    return {**os.environ, "HYPERLANE_STORE": str(store), "COLUMNS": "200"}


def hyperlane(*arguments: str, cwd: Path, store: Path, timeout_s: float = 100, **kwargs: Any) -> Done:
    """Run `python -m hyperlane` in `cwd` to its end."""
    command = [sys.executable, "-m", "hyperlane", *arguments]
    done = subprocess.run(
        command, cwd=cwd, env=environment(store), capture_output=True, text=True, timeout=timeout_s, **kwargs
    )
    return Done(done.returncode, done.stdout, done.stderr)


def error_of(done: Done) -> str:
    """The one line of a refused command; asserts that it is one line, exit code 2 and no traceback."""
    assert done.code == 2, done
    assert "Traceback" not in done.err, done.err
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.err
    assert done.err.splitlines()[-1] == errors[0], done.err
    return errors[0]
