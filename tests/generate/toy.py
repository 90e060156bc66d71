"""A model of a few lines: the next token depends on every token before it, so no mix-up stays unseen."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hyperlane.generate.engine import Rows, StepChain
from hyperlane.generate.step import Following, Step
from hyperlane.transport.candidates import greedy

VOCABULARY = 7  # few, so that wrong drafts are right now and then


def next_token(keys: Sequence[int]) -> int:
    """The toy's greedy choice behind `keys`."""
    state = 1469598103
    for key in keys:
        state = (state ^ key) * 1099511628 % 2**31
    return state // 97 % VOCABULARY


def answer(prompt: Sequence[int], count: int) -> list[int]:
    """What a request gets when it is alone."""
    keys = list(prompt)
    for _ in range(count):
        keys.append(next_token(keys))
    return keys[len(prompt) :]


@dataclass(slots=True)
class ToyWorkers:
    """Keeps each slot's tokens as keys and values, and refuses what workers refuse."""

    keys: dict[int, list[int]] = field(default_factory=dict)
    in_flight: deque[tuple[Step, list[int]]] = field(default_factory=deque)
    computed_tokens: int = 0

    def send(self, step: Step) -> None:
        self.in_flight.append((step, self.compute(step)))

    def compute(self, step: Step) -> list[int]:
        """The token of each output row."""
        return [next_token(keys) for keys in self.outputs(step)]

    def outputs(self, step: Step) -> list[list[int]]:
        """The keys up to each output row."""
        if step.fork is not None:
            source = self.keys[step.fork.source]
            assert 0 < step.fork.count <= len(source), "a copy of what is not there"
            assert step.fork.source != step.fork.target
            self.keys[step.fork.target] = source[: step.fork.count]
            return []
        tokens, rows = iter(step.token_ids), []
        assert len({run.slot for run in step.runs}) == len(step.runs) == len(step.owners)
        for run in step.runs:
            assert 0 < run.count >= run.outputs
            keys = self.keys.setdefault(run.slot, [])
            assert run.position <= len(keys), "a position was left out"
            del keys[run.position :]
            keys += [next(tokens) for _ in range(run.count)]
            rows += [keys[: len(keys) - back] for back in reversed(range(run.outputs))]
        assert next(tokens, None) is None
        self.computed_tokens += len(step.token_ids)
        return rows


def answered(chain: StepChain, rows: Rows, following: Following | None) -> Rows:
    """What a chain does that sends the following step by itself."""
    if following is None:
        return rows
    tokens = greedy(rows.ids_NK, rows.logits_NK)
    if not following.stop_ids.isdisjoint(tokens):
        return rows
    chain.send(replace(following.step, token_ids=tuple(tokens)), whole_rows=False)
    return replace(rows, answered=tokens)
