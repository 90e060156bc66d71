"""A run's folder: artifacts saved and loaded atomically, stamps that say what a stage was made from, and run.json."""

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hyperlane.artifacts import from_json, to_json
from hyperlane.errors import StoreError

T = TypeVar("T")

_VERSIONED = (
    "hyperlane",
    "torch",
    "transformers",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "numpy",
    "trio",
    "grpcio",
)


def text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_atomic(path: Path, text: str) -> None:
    """Write by temporary file and rename, so that a reader sees the old content or the new, never half of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}; free some room or choose another folder") from error


@dataclass(frozen=True, slots=True)
class RunDir:
    """`root/<stage>/<file>` plus a stamp for each stage that finished."""

    root: Path

    def save(self, stage: str, file: str, artifact: object, inputs: Mapping[str, str]) -> None:
        """Write a stage's artifact, then, last, the stamp that says what it was made from."""
        path = self.root / stage / file
        text = to_json(artifact)
        write_atomic(path, text)
        stamp = {"inputs": dict(inputs), "file": file, "sha256": text_digest(text)}
        write_atomic(self.root / stage / "stamp.json", json.dumps(stamp, indent=2) + "\n")

    def revise(self, stage: str, file: str, artifact: object) -> None:
        """Write again what a finished stage made, from the same inputs: more is known of it by now."""
        try:
            inputs = json.loads((self.root / stage / "stamp.json").read_text())["inputs"]
        except (OSError, json.JSONDecodeError, KeyError):
            inputs = {}  # the stage will run again
        self.save(stage, file, artifact, inputs)

    def done(self, stage: str, inputs: Mapping[str, str]) -> bool:
        """Whether the stage finished from exactly these inputs and its artifact is still what it wrote."""
        try:
            stamp = json.loads((self.root / stage / "stamp.json").read_text())
            text = (self.root / stage / stamp["file"]).read_text()
        except (OSError, json.JSONDecodeError, KeyError):
            return False
        return bool(stamp.get("inputs") == dict(inputs) and stamp.get("sha256") == text_digest(text))

    def load(self, stage: str, file: str, kind: type[T]) -> T:
        path = self.root / stage / file
        try:
            return from_json(kind, path.read_text())
        except OSError as error:
            raise StoreError(f"{path} is missing; add the stage: stages=[{stage},...]") from error
        except ValueError as error:
            raise StoreError(f"{path} is {error}; delete it and run stages=[{stage},...] again") from error

    def write_text(self, stage: str, file: str, text: str) -> None:
        write_atomic(self.root / stage / file, text)


def write_run_json(
    run_dir: RunDir, config_sha256: str, seed: int, inputs: Mapping[str, str], outputs: Mapping[str, str]
) -> None:
    """What made this run and what it made, for `python -m hyperlane.verify`."""
    record = {
        "config_sha256": config_sha256,
        "versions": versions(),
        "git_commit": git_commit(),
        "seed": seed,
        "inputs": dict(inputs),
        "outputs": dict(outputs),
    }
    write_atomic(run_dir.root / "run.json", json.dumps(record, indent=2) + "\n")


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit of the checkout that this package runs from; None for an installed package."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        out = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return out.stdout.strip() or None
