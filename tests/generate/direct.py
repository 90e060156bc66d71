"""An engine over shards in this process: no sockets, no worker processes."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from hyperlane.errors import TablesError
from hyperlane.generate.engine import Engine, Rows
from hyperlane.generate.sampling import Sampling
from hyperlane.generate.scheduler import Drafts, Scheduler
from hyperlane.generate.step import Following, Step
from hyperlane.generate.text import Limits
from tests.fixtures_model import Chain
from tests.generate.toy import answered


@dataclass
class DirectChain:
    """Computes a step as it is sent; the result waits until it is taken."""

    chain: Chain
    results: deque[tuple[Step, Rows]] = field(default_factory=deque)
    computed_tokens: int = 0

    def send(self, step: Step, *, whole_rows: bool) -> None:
        self.results.append((step, self._compute(step, whole_rows)))
        self.computed_tokens += len(step.token_ids)

    def receive(self, step: Step, timeout_s: float, following: Following | None) -> Rows:
        sent, rows = self.results.popleft()
        assert sent == step
        return answered(self, rows, following)

    def rewire(self, mismatch: TablesError) -> None:
        raise mismatch

    def _compute(self, step: Step, whole_rows: bool) -> Rows:
        if step.fork is not None:
            for shard in self.chain.shards:
                shard.copy(step.fork.source, step.fork.target, step.fork.count)
            return Rows(np.empty((0, 1), np.int64), np.empty((0, 1), np.float32))
        result = self.chain.step(step.runs, step.token_ids, want_logits=whole_rows)
        if result.logits_NV is not None:
            return Rows(np.broadcast_to(np.arange(result.logits_NV.shape[1]), result.logits_NV.shape), result.logits_NV)
        assert result.ids_NK is not None
        assert result.logits_NK is not None
        return Rows(result.ids_NK, result.logits_NK)


class Numbers:
    """A decoder that shows the ids."""

    def push(self, token_id: int) -> str:
        return f"{token_id} "

    def finish(self) -> str:
        return ""


def direct_engine(
    chain: Chain,
    *,
    slots: int = 1,
    lanes: int = 1,
    context: int = 128,
    prefill_chunk: int = 256,
    reuse: bool = False,
    drafts: Drafts | None = None,
    sampling: Sampling | None = None,
    max_new_tokens: int = 24,
) -> Engine:
    scheduler = Scheduler(
        slots=slots,
        lanes=lanes,
        context=context,
        prefill_chunk=prefill_chunk,
        hops=len(chain.shards),
        reuse=reuse,
        drafts=drafts,
    )
    return Engine(
        chain=DirectChain(chain),
        scheduler=scheduler,
        sampling=sampling or Sampling(),
        limits=Limits(max_new_tokens=max_new_tokens),
        stop_ids=frozenset(),
        open_decoder=Numbers,
    )
