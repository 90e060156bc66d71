"""This project, through `AutoDistributedModel`: two local workers of one thread each."""

import itertools
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from hyperlane import AutoDistributedModel
from tests.bench.engines.engine import CONTEXT, SLOTS, peak_bytes
from tests.bench.engines.prompts import long_prompt, short_prompts

ROOT = Path(__file__).parents[3]
OVERRIDES = (
    "cluster.workers=2",
    "cluster.threads=1",
    f"generate.slots={SLOTS}",
    f"generate.context={CONTEXT}",
    "generate.ignore_eos=true",
    "generate.raw_prompt=true",
)


class Ours:
    """One deployment for all measurements. Prompts never repeat, so that no prefix is cached."""

    name = "ours"

    def __init__(self, model: AutoDistributedModel) -> None:
        self._model = model
        self._seeds = itertools.count()

    @classmethod
    @contextmanager
    def open(cls, overrides: Sequence[str]) -> "Iterator[Ours]":
        with AutoDistributedModel.from_pretrained("smollm2_135m", overrides=[*OVERRIDES, *overrides]) as model:
            yield cls(model)

    def decode_per_s(self, streams: int, new_tokens: int) -> float:
        """From the first token of any stream to the last of all: the other streams' prefill counts against us."""
        return self.texts_per_s(short_prompts(streams, next(self._seeds)), new_tokens)

    def texts_per_s(self, prompts: Sequence[str], new_tokens: int) -> float:
        """As `decode_per_s`, of these prompts."""
        answers = self._model.generate_full(prompts, max_new_tokens=new_tokens)
        first_s = min(answer.ttft_s for answer in answers)
        last_s = max(a.ttft_s + (len(a.token_ids) - 1) / a.decode_tokens_per_s for a in answers)
        return sum(len(answer.token_ids) - 1 for answer in answers) / (last_s - first_s)

    def first_token_s(self, prompt_tokens: int) -> float:
        (answer,) = self._model.generate_full([long_prompt(prompt_tokens, next(self._seeds))], max_new_tokens=1)
        if len(answer.prompt_token_ids) != prompt_tokens:
            raise ValueError(f"a prompt of {prompt_tokens} words has {len(answer.prompt_token_ids)} tokens")
        return answer.ttft_s

    def peak_bytes(self) -> list[int]:
        children = psutil.Process().children()
        return [peak_bytes(child.pid) for child in children if "hyperlane.worker" in child.cmdline()]


def start_up_s(overrides: Sequence[str]) -> float:
    """From the start of a Python process to a deployed model that answered with its first token."""
    code = (
        "import sys; from hyperlane import AutoDistributedModel\n"
        "with AutoDistributedModel.from_pretrained('smollm2_135m', overrides=sys.argv[1:]) as model:\n"
        "    model.generate('Hi', max_new_tokens=1); print('ready', flush=True); sys.stdin.read()\n"
    )
    begun_s = time.perf_counter()
    command = [sys.executable, "-c", code, *OVERRIDES, *overrides]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("the model did not deploy; see above")
        return time.perf_counter() - begun_s
