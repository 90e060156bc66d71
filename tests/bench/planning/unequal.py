"""Three one-thread workers at quotas of 1, 0.5 and 0.25 and one link of 5 Mbit/s: optimal against uniform.

Uniform runs in the best, by measurement, of its orders that leave the slow link alone. The ideal ratio is that of
cores: uniform goes at the pace of the weakest, three times its quota; at best all quotas count.
"""

import sys
from itertools import pairwise, permutations

from tests.bench.planning.ask import Task
from tests.bench.planning.hosts import Hosts, hosts
from tests.bench.planning.validate import coordinator
from tests.bench.row import Row, compared

QUOTAS = (1.0, 0.5, 0.25)
SLOW, SLOW_MBIT_S = (1, 2), 5.0  # from the second worker to the third
IDEAL = sum(QUOTAS) / (len(QUOTAS) * min(QUOTAS))
SLOTS, NEW_TOKENS, TURNS = 6, 24, 1
LAYERS = 30


def unequal() -> list[Row]:
    with hosts(QUOTAS) as where:
        slow = (where.names[SLOW[0]], where.names[SLOW[1]])
        orders = [order for order in permutations(where.names) if slow not in pairwise(order)]
        with coordinator(where) as ask:  # sends the layers before the link is slow
            for order in orders:
                ask(_task(where, _uniform(order), new_tokens=2, streams=1))
        where.slow_link(*SLOW, SLOW_MBIT_S)
        with coordinator(where) as ask:
            rates: dict[str, float] = {}
            for _ in range(TURNS):
                for order in orders:
                    answer = ask(_task(where, _uniform(order), NEW_TOKENS))
                    name = f"uniform {' '.join(order)}"
                    rates[name] = max(rates.get(name, 0.0), answer.streams_tokens_per_s)
                answer = ask(_task(where, ["partition=optimal", "partition.objective=throughput"], NEW_TOKENS))
                rates["optimal"] = max(rates.get("optimal", 0.0), answer.streams_tokens_per_s)
                print(f"{answer.layers}: {rates}", file=sys.stderr)
    best = max(rate for name, rate in rates.items() if name != "optimal")
    return [
        Row(what="uniform, best order", value=best, unit="tok/s"),
        compared("unequal speedup", rates["optimal"], "tok/s", best),
        Row(what="unequal speedup, ideal by cores", value=IDEAL, unit="x"),
    ]


def _uniform(order: tuple[str, ...]) -> list[str]:
    share = LAYERS // len(order)
    return [
        "partition=manual",
        f"partition.layers=[{','.join([str(share)] * len(order))}]",
        f"partition.workers=[{','.join(order)}]",
    ]


def _task(where: Hosts, partition: list[str], new_tokens: int, streams: int = SLOTS) -> Task:
    words = [f"cluster.addresses=[{','.join(where.addresses)}]", "transport/codec=raw", *partition]
    words += [f"generate.slots={SLOTS}", "generate.context=256"]
    return Task(model="smollm2", overrides=words, prompt_tokens=16, new_tokens=new_tokens, repeat=1, streams=streams)
