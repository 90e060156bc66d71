"""What the chain adds to its shards' compute, and how much of the time workers compute with many streams.

SmolLM2-135M over two workers of one thread each. `chain step` is the time between two tokens of one stream; its
reference is the compute of the same shards for the same positions, one behind the other in this process, without a link
(a ratio of 1.10 says that links, scheduling and sampling add a tenth). "After pauses" each shard sleeps before a step
as long as the others compute, as a worker does: a core that slept computes slower for a while. They take turns; figures
are medians. `busy` is from the timeline of a run of its own. What follows `--` are overrides:
`-- quantization=int8 transport/codec=raw`.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hyperlane import AutoDistributedModel
from hyperlane.artifacts import Generation, from_json
from hyperlane.compose import compose
from hyperlane.transport.frame import Run
from hyperlane.worker.session import Session
from tests.bench.row import Row, compared

PROMPT = "Write a long story about a fox who learns to read."
NEW_TOKENS = 64
BASE = (
    "transport/codec=auto",
    "quantization=int4",
    "cluster.workers=2",
    "cluster.threads=1",
    "generate.ignore_eos=true",
    "generate.context=1024",
)


def run(args: Sequence[str]) -> list[Row]:
    parser = argparse.ArgumentParser(prog="python -m tests.bench step")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args(args)
    overrides = [*BASE, *options.overrides]
    return [*_chain(options.repeat, overrides), *_busy(options.streams, overrides)]


def _chain(repeat: int, overrides: Sequence[str]) -> list[Row]:
    store = compose("smollm2_135m", ["cluster=local", *overrides]).store.path
    with AutoDistributedModel.from_pretrained("smollm2_135m", overrides=overrides) as model:
        shards = [
            Session(store / "blobs" / shard.digest, slots=1, context=model.deployment.context, threads=1)
            for shard in model.deployment.shards
        ]
        chain_s, alone_s, paused_s = [], [], []
        for turn in range(repeat + 1):
            (answer,) = model.generate_full([PROMPT], NEW_TOKENS)
            token_ids, prompt = [*answer.prompt_token_ids, *answer.token_ids], len(answer.prompt_token_ids)
            alone = _alone_s(shards, token_ids, prompt)
            paused = _alone_s(shards, token_ids, prompt, pause_s=alone * (len(shards) - 1) / len(shards))
            if turn:  # the first only warmed up
                chain_s.append(1 / answer.decode_tokens_per_s)
                alone_s.append(alone)
                paused_s.append(paused)
    chain_ms, alone_ms, paused_ms = (1e3 * statistics.median(times) for times in (chain_s, alone_s, paused_s))
    return [
        Row(what="compute of the shards alone", value=alone_ms, unit="ms"),
        Row(what="compute of the shards alone, after pauses", value=paused_ms, unit="ms"),
        compared("chain step", chain_ms, "ms", alone_ms),
    ]


def _alone_s(shards: Sequence[Session], token_ids: Sequence[int], prompt: int, pause_s: float = 0.0) -> float:
    """The mean time of a decode step of one stream, without the prompt's, and without pauses before each shard."""
    _step_s(shards, token_ids[:prompt], 0, 0.0)
    steps_s = [
        _step_s(shards, token_ids[position : position + 1], position, pause_s)
        for position in range(prompt, len(token_ids) - 1)
    ]
    return sum(steps_s) / len(steps_s)


def _step_s(shards: Sequence[Session], token_ids: Sequence[int], position: int, pause_s: float) -> float:
    rows, runs = np.array(token_ids, np.int64), [Run(0, 1, position, len(token_ids))]
    elapsed_s = 0.0
    for shard in shards:
        if pause_s:
            time.sleep(pause_s)
        start_s = time.perf_counter()
        rows = shard.run(runs, rows).hidden_RD  # type: ignore[assignment]
        elapsed_s += time.perf_counter() - start_s
    return elapsed_s


def _busy(streams: int, overrides: Sequence[str]) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder, "prompts.jsonl")
        prompts.write_text("\n".join(f'"Tell story number {number} about the sea."' for number in range(streams)))
        own = [f"prompts_file={prompts}", f"generate.slots={streams}", f"generate.max_new_tokens={2 * NEW_TOKENS}"]
        command = [sys.executable, "-m", "hyperlane", *overrides, *own]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    run_dir = out.rstrip().rpartition("run: ")[2]
    generation = from_json(Generation, Path(run_dir, "generate", "generation.json").read_text())
    return [
        Row(what=f"busy, {streams} streams, {worker.name}", value=100 * (worker.busy or 0.0), unit="%")
        for worker in generation.workers
    ]
