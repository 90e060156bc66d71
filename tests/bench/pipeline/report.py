"""Which jobs a report of pipelines takes, and its table."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.pipeline.parts import main as trace
from tests.bench.row import Row

JOB_S = 300


def report(parts: Path | None, shapes: Sequence[str], workers: int, devices: Sequence[int], codec: str) -> list[Row]:
    """Pipelines of `workers` over `devices` in turns, against the same shards without links and against HF.

    parts: a folder of graphs as `tests.bench.pipeline.parts` writes it; None traces them here.
    """
    places = [f"cuda:{devices[i % len(devices)]}" for i in range(workers)]
    with tempfile.TemporaryDirectory() as folder:
        if parts is None:
            parts = Path(folder, "parts")
            trace([str(parts)])
        shared = {"parts": str(parts), "store": str(Path(folder, "store")), "codec": codec}
        return [row for job, told in _jobs(shapes, places) for row in _run(job, {**shared, **told})]


def _jobs(shapes: Sequence[str], places: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    one = [places[0]] * len(places)
    small = {"shape": "small", "slots": 2, "context": 256, "codec": "raw"}
    for weights in ("fp16", "fp32"):
        yield "agreement", {**small, "devices": places[:1], "weights": [weights]}
    yield "mixed", {**small, "devices": one, "weights": ["fp32"]}
    for devices, weights in (([places[0], "cpu"], ["fp16", "fp32"]), (["cpu", places[0]], ["fp32", "fp16"])):
        yield "mixed", {**small, "devices": devices, "weights": weights}
    for shape in shapes:
        for weights in ("fp16", "int4") if shape == "7b" else ("fp16",):
            told = {"shape": shape, "weights": [weights], "lanes": [[4, 8]]}
            yield "bare", {**told, "devices": one}
            for shortcut in (True, False):
                yield "pipeline", {**told, "devices": places, "shortcut": shortcut}
            if len(set(places)) > 1:
                yield "pipeline", {**told, "devices": one}
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
