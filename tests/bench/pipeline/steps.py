"""Steps through a chain, timed: decoding in lanes, prompts in chunks. A token is what the chain's last worker says."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hyperlane.generate.chain import Chain
from hyperlane.generate.step import Step, Use
from hyperlane.transport.frame import Run

TIMEOUT_S = 60.0


@dataclass(slots=True)
class Driver:
    """Sends steps and takes their results, in order."""

    chain: Chain
    number: int = 0

    def step(self, lane: int, runs: Sequence[Run], ids: Sequence[int]) -> Step:
        self.number += 1
        prefill = any(run.outputs < run.count for run in runs)
        step = Step(
            number=self.number,
            lane=lane,
            use=Use.PREFILL if prefill else Use.DECODE,
            owners=(),
            runs=tuple(runs),
            token_ids=tuple(ids),
        )
        self.chain.send(step, whole_rows=False)
        return step

    def tokens(self, step: Step) -> list[int]:
        """The likeliest token of each output row."""
        ids: list[int] = self.chain.receive(step, TIMEOUT_S).ids_NK[:, 0].tolist()
        return ids

    def prefill(self, slot: int, ids: Sequence[int], chunk: int, outputs: int = 1) -> list[int]:
        """A prompt in chunks, one behind another; `outputs` likeliest tokens behind its last positions."""
        steps = []
        for at in range(0, len(ids), chunk):
            part = ids[at : at + chunk]
            wanted = outputs if at + chunk >= len(ids) else 0
            steps.append(self.step(0, [Run(slot, wanted, at, len(part))], part))
        found: list[int] = []
        for step in steps:
            found = self.tokens(step)
        return found


def decode_s(driver: Driver, lanes: int, rows: int, past: int, steps: int) -> float:
    """Seconds of one step of all lanes, each of `rows` sequences that hold `past` positions. Median of the steps.

    Every lane has a step under way; its next one is sent when its tokens are there.
    """
    under_way: deque[tuple[int, int, Step]] = deque()
    for lane in range(lanes):
        under_way.append((lane, past, _decode(driver, lane, rows, past, [7] * rows)))
    ends_s: list[float] = []
    while under_way:
        lane, position, step = under_way.popleft()
        ids = driver.tokens(step)
        if lane == lanes - 1:
            ends_s.append(time.perf_counter())
        if position + 1 < past + steps:
            under_way.append((lane, position + 1, _decode(driver, lane, rows, position + 1, ids)))
    return float(np.median(np.diff(ends_s[steps // 4 :])))


def _decode(driver: Driver, lane: int, rows: int, position: int, ids: Sequence[int]) -> Step:
    return driver.step(lane, [Run(lane * rows + row, 1, position, 1) for row in range(rows)], ids)


def fill_slots(driver: Driver, slots: int, past: int, vocab: int) -> None:
    """Let every slot hold `past` positions."""
    ids = np.random.default_rng(5).integers(0, vocab, past).tolist()
    for slot in range(slots):
        driver.prefill(slot, ids, 512)


def prefill_s(driver: Driver, tokens: int, chunk: int, vocab: int, repeats: int = 5) -> float:
    """Seconds until the first token of a prompt, the median; it is computed in slot 0."""
    ids = np.random.default_rng(6).integers(0, vocab, tokens).tolist()
    times_s = []
    for _ in range(repeats + 1):
        begin_s = time.perf_counter()
        driver.prefill(0, ids, chunk)
        times_s.append(time.perf_counter() - begin_s)
    return float(np.median(times_s[1:]))


def continued(driver: Driver, slot: int, prompt: Sequence[int], count: int) -> list[int]:
    """Greedy tokens behind a prompt."""
    found = driver.prefill(slot, prompt, 64)
    while len(found) < count:
        position = len(prompt) + len(found) - 1
        found.append(driver.tokens(driver.step(0, [Run(slot, 1, position, 1)], found[-1:]))[0])
    return found
