"""Which jobs a report of pipelines takes, and its table."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.pipeline.parts import main as trace
from tests.bench.row import Row

JOBS = ("agreement", "mixed", "bare", "pipeline", "hf")
JOB_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """`places`: a device a worker. `codec`: of the links by TCP."""

    shapes: Sequence[str]
    weights: Sequence[str]
    jobs: Sequence[str]
    places: Sequence[str]
    codec: str


def report(parts: Path | None, wanted: Wanted) -> Iterator[Row]:
    """Pipelines of workers on their places, against the same shards without links and against HF.

    parts: a folder of graphs as `tests.bench.pipeline.parts` writes it; None traces them here.
    """
    with tempfile.TemporaryDirectory() as folder:
        if parts is None:
            parts = Path(folder, "parts")
            trace([str(parts)])
        shared = {"parts": str(parts), "store": str(Path(folder, "store")), "codec": wanted.codec}
        for job, told in [*_small(wanted.places), *_large(wanted)]:
            if job not in wanted.jobs:
                continue
            for row in _run(job, {**shared, **told}):
                print(f"{row.what} {row.value:.4g} {row.unit}", file=sys.stderr)  # the table comes last, minutes later
                yield row


def _small(places: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is the same on a GPU as on a CPU."""
    small = {"shape": "small", "slots": 2, "context": 256, "codec": "raw"}
    for one in ("fp16", "fp32"):
        yield "agreement", {**small, "devices": places[:1], "weights": [one]}
    yield "mixed", {**small, "devices": [places[0]] * len(places), "weights": ["fp32"]}
    for devices, weights in (([places[0], "cpu"], ["fp16", "fp32"]), (["cpu", places[0]], ["fp32", "fp16"])):
        yield "mixed", {**small, "devices": devices, "weights": weights}


def _large(wanted: Wanted) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is fast. On one GPU a large model leaves no room for as many slots of as much context."""
    places, one = wanted.places, [wanted.places[0]] * len(wanted.places)
    for shape in wanted.shapes:
        small = shape == "7b"
        for weights in wanted.weights if small else ("fp16",):
            told = {"shape": shape, "weights": [weights], "lanes": [[4, 8]]}
            alone = {**told, "devices": one} if small else {**told, "devices": one, "context": 512, "prefills": []}
            yield "bare", alone
            for shortcut in (True, False):
                yield "pipeline", {**told, "devices": places, "shortcut": shortcut}
            if len(set(places)) > 1:
                yield "pipeline", alone
            if len(set(places)) > 1 and not small:
                yield "pipeline", {**told, "devices": one, "slots": 1, "batches": [], "lanes": []}
        yield "hf", {"shape": shape, "devices": list(dict.fromkeys(places))}


def _run(job: str, told: Mapping[str, Any]) -> Iterator[Row]:
    """One job in a process of its own; a failure is said, and the others go on."""
    command = [sys.executable, "-m", "tests.bench.pipeline.jobs", job, json.dumps(told)]
    way = "" if told.get("shortcut", True) else " by TCP"
    name = f"{told['shape']} {'+'.join(told.get('weights', ['fp16']))} {job}{way} on {'+'.join(told['devices'])}"
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=JOB_S)
    except subprocess.TimeoutExpired:
        print(f"{name}: not done in {JOB_S} s", file=sys.stderr)
        return
    if done.returncode:
        print(f"{name}: failed with status {done.returncode}", file=sys.stderr)
    for line in done.stdout.splitlines():
        found = json.loads(line)
        what, _, unit = found["what"].rpartition(" ")
        if unit not in ("ms", "us"):
            what, unit = found["what"], ""
        if what != "seconds":
            yield Row(what=f"{name}: {what}", value=found["value"], unit=unit)
