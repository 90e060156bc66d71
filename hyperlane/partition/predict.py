"""What a placement should do by the figures measured: pure."""

import itertools
from collections.abc import Sequence
from statistics import median

from hyperlane.artifacts import Cluster, ModelSpec, Prediction, StagePrediction
from hyperlane.partition import Range
from hyperlane.partition.costs import Links, StepCosts, StepKind, step_costs
from hyperlane.partition.memory import Workload
from hyperlane.partition.problem import Chain
from hyperlane.simulate.costs import ChainCosts
from hyperlane.simulate.serve import Replica, Request, simulate_phases


def predict(model: ModelSpec, cluster: Cluster, workload: Workload, ranges: Sequence[Range]) -> Prediction:
    """Each link takes the codec that is quickest in each phase, of those that the workload allows."""
    hops = len(ranges)
    rows, lanes = workload.lane_rows(hops), workload.lanes_of(hops)
    chunk = workload.chunk_of(hops)
    kinds = [
        StepKind(True, 1, workload.past),
        StepKind(True, rows, workload.past),
        StepKind(False, chunk, max(0, workload.prompt_tokens - chunk) // 2),
    ]
    links = Links.of(cluster)
    one, lane, prefill = (step_costs(model, cluster, workload.codecs, kind, links) for kind in kinds)
    chain = _chain(cluster, ranges, one)
    one_parts, lane_parts = one.bottleneck.parts(chain), lane.bottleneck.parts(chain)
    compute_s = sum(one.stages.of(*span) for span in chain.spans())
    step_s = max(one.total.of(chain), *one_parts)
    period_s, binds = _period(cluster, chain, lane, lane_parts, lanes)
    return Prediction(
        measured=all(cluster.workers[w].speeds for w in chain.workers),
        step_s=step_s,
        ttft_s=_ttft_s(chain_costs(model, cluster, workload, ranges), workload),
        prompt_tokens=workload.prompt_tokens,
        lanes=lanes,
        lane_rows=rows,
        tokens_per_s=rows / period_s,
        compute_s=compute_s,
        wire_s=max(0.0, one.total.of(chain) - compute_s),
        binds=binds,
        stages=tuple(
            StagePrediction(
                worker=cluster.workers[w].name,
                decode_s=one.stages.of(w, start, stop),
                lane_s=lane.stages.of(w, start, stop),
                prefill_s=prefill.stages.of(w, start, stop),
                codec=workload.codecs[chain.options[hop]] if hop < hops - 1 else "",
                wire_s=_link_s(one, chain, hop),
                link_latency_s=0.0 if hop == hops - 1 else float(links.latency_s_WW[w, chain.workers[hop + 1]]),
                link_bytes_per_s=0.0 if hop == hops - 1 else float(links.bytes_per_s_WW[w, chain.workers[hop + 1]]),
            )
            for hop, (w, start, stop) in enumerate(chain.spans())
        ),
    )


def chain_costs(model: ModelSpec, cluster: Cluster, workload: Workload, ranges: Sequence[Range]) -> ChainCosts:
    """For the simulation: each link with the codec that is quickest in each phase."""
    hops, tokens = len(ranges), workload.prompt_tokens
    chunk = workload.chunk_of(hops)
    kinds = {
        "decode": StepKind(True, 1, workload.past),
        "prefill": StepKind(False, chunk, max(0, tokens - chunk) // 2),
    }
    links = Links.of(cluster)
    carried = {
        phase: _chain(cluster, ranges, step_costs(model, cluster, workload.codecs, kind, links)).options
        for phase, kind in kinds.items()
    }
    named = {phase: [workload.codecs[option] for option in options] for phase, options in carried.items()}
    return ChainCosts.of(model, cluster, ranges, named)


def _ttft_s(costs: ChainCosts, workload: Workload) -> float:
    """Of a lone prompt, cut and sent by the very scheduler that will do it."""
    hops, tokens = len(costs.stages), workload.prompt_tokens
    replica = Replica(
        costs=costs,
        slots=workload.slots,
        lanes=workload.lanes_of(hops),
        context=tokens + 1,
        prefill_chunk=workload.prefill_chunk,
    )
    return median(found.served[0].ttft_s for found in simulate_phases(replica, [Request(0.0, tokens, 1)]))


def _chain(cluster: Cluster, ranges: Sequence[Range], costs: StepCosts) -> Chain:
    index = {worker.name: i for i, worker in enumerate(cluster.workers)}
    workers = tuple(index[item.worker] for item in ranges)
    options = tuple(int(costs.total.link_OWW[:, a, b].argmin()) for a, b in itertools.pairwise(workers))
    return Chain(workers, tuple(item.stop for item in ranges), options)


def _link_s(costs: StepCosts, chain: Chain, hop: int) -> float:
    worker = chain.workers[hop]
    if hop == len(chain.workers) - 1:
        return float(costs.leave_W[worker])
    return float(costs.total.link_OWW[chain.options[hop], worker, chain.workers[hop + 1]])


def _period(cluster: Cluster, chain: Chain, costs: StepCosts, parts: list[float], lanes: int) -> tuple[float, str]:
    """Seconds from one lane's step to the next with all lanes full, and what decides them."""
    hops = len(chain.workers)
    busy_s: dict[str, float] = {}  # of a machine whose cores several workers share
    machines = [cluster.workers[w].machine for w in chain.workers]
    for hop, span in enumerate(chain.spans()):
        worker = cluster.workers[span[0]]
        if worker.machine and worker.cores:
            crowded = worker.crowded_decode if machines.count(worker.machine) > 1 and lanes > 1 else 1.0
            parts[hop] *= crowded
            share_s = crowded * costs.stages.of(*span) * min(worker.threads, worker.cores) / worker.cores
            busy_s[worker.machine] = busy_s.get(worker.machine, 0.0) + share_s
    reasons = [
        (max([*parts[:hops], *busy_s.values()]), "compute"),
        (max(parts[hops:], default=0.0), "wire"),
        (costs.total.of(chain) / lanes, "latency"),
    ]
    return max(reasons, key=lambda reason: reason[0])
