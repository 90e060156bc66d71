"""simulate: requests through chains that need not exist, by the cluster's figures; several chains where they fit."""

from collections.abc import Iterator
from dataclasses import replace
from statistics import median, quantiles

import numpy as np
import trio

from hyperlane.artifacts import Cluster, ModelSpec, Plan, ReplicaReport, Simulation
from hyperlane.config import Config, SimulatedLoad
from hyperlane.errors import ConfigError, PlanError
from hyperlane.partition import Range, count, cut
from hyperlane.partition.memory import Workload
from hyperlane.partition.predict import chain_costs, predict
from hyperlane.simulate.serve import Replica, Request, Served, Simulated, simulate
from hyperlane.stages.context import Context
from hyperlane.stages.workload import workload_of


async def run(context: Context) -> Simulation:
    return await trio.to_thread.run_sync(
        simulated, context.plan, context.cluster, context.config, abandon_on_cancel=True
    )


def show(context: Context) -> None:
    found = context.simulation
    said = context.console.print
    said(
        f"simulate: {found.requests} requests in {found.seconds:.4g} s, {found.tokens_per_s:.4g} tokens/s; "
        f"first token {found.ttft_s:.3g} s (95 %: {found.ttft_95_s:.3g}), then {1e3 * found.token_s:.3g} ms a token "
        f"(95 %: {1e3 * found.token_95_s:.3g})"
    )
    for number, one in enumerate(found.replicas):
        busy = ", ".join(f"{name} {100 * share:.0f} %" for name, share in zip(one.workers, one.busy, strict=True))
        said(f"simulate: chain {number}: {one.requests} requests; busy {busy}")


def simulated(plan: Plan, cluster: Cluster, config: Config) -> Simulation:
    """The load through the plan's chain, and through more of them on the workers that it leaves."""
    load, model = config.simulate, plan.model
    if load.prompt_tokens + load.new_tokens > plan.context:
        raise ConfigError(
            f"simulate.prompt_tokens={load.prompt_tokens} and simulate.new_tokens={load.new_tokens} are more than "
            f"a slot's {plan.context} positions; raise generate.context"
        )
    workload = replace(
        workload_of(config, model.max_positions, load.prompt_tokens, cluster.workers), context=plan.context
    )
    chains = list(_chains(plan, cluster, config, workload))
    replicas = [_replica(model, cluster, chain, workload, config) for chain in chains]
    found = simulate(replicas, _requests(load))
    return _reported(found, chains)


def _chains(plan: Plan, cluster: Cluster, config: Config, workload: Workload) -> Iterator[tuple[Range, ...]]:
    """The plan's, then each as the strategy places it on the workers that are left."""
    chain = tuple(Range(p.worker, p.start, p.stop) for p in plan.placements)
    left, wanted = cluster, config.simulate.replicas
    number = 0
    while True:
        yield chain
        number += 1
        used = {item.worker for item in chain}
        left = replace(left, workers=tuple(worker for worker in left.workers if worker.name not in used))
        if number == wanted or not left.workers:
            break
        try:
            found = cut(config.partition, plan.model, left, workload)
            count(config.partition, found, plan.model, left, workload)
        except PlanError:
            break
        chain = found.ranges
    if number < wanted:
        raise PlanError(f"simulate.replicas={wanted}, but the workers hold {number}; add workers, or give 0 for all")


def _replica(
    model: ModelSpec, cluster: Cluster, chain: tuple[Range, ...], workload: Workload, config: Config
) -> Replica:
    predicted = predict(model, cluster, workload, chain)
    return Replica(
        costs=chain_costs(model, cluster, workload, chain),
        slots=workload.slots,
        lanes=predicted.lanes,
        context=workload.context,
        prefill_chunk=config.generate.prefill_chunk,
        step_s=predicted.step_s,
        token_s=1 / predicted.tokens_per_s,
        prompt_token_s=predicted.ttft_s / workload.prompt_tokens,
    )


def _requests(load: SimulatedLoad) -> list[Request]:
    """At random moments, so many a second; all at once where the rate is 0."""
    gaps_s = np.zeros(load.requests)
    if load.rate_per_s:
        gaps_s = np.random.default_rng(load.seed).exponential(1 / load.rate_per_s, load.requests)
    return [Request(float(at_s), load.prompt_tokens, load.new_tokens) for at_s in np.cumsum(gaps_s)]


def _reported(found: Simulated, chains: list[tuple[Range, ...]]) -> Simulation:
    served = found.served
    firsts_s, tokens_s = [one.ttft_s for one in served], [one.token_s for one in served]
    return Simulation(
        requests=len(served),
        seconds=found.end_s,
        tokens_per_s=sum(one.tokens for one in served) / found.end_s,
        ttft_s=median(firsts_s),
        ttft_95_s=_most(firsts_s),
        token_s=median(tokens_s),
        token_95_s=_most(tokens_s),
        replicas=tuple(_replica_report(found, served, index, chain) for index, chain in enumerate(chains)),
    )


def _replica_report(
    found: Simulated, served: tuple[Served, ...], index: int, chain: tuple[Range, ...]
) -> ReplicaReport:
    return ReplicaReport(
        workers=tuple(item.worker for item in chain),
        requests=sum(one.replica == index for one in served),
        busy=tuple(sum(s.compute_s for s in by_phase.values()) / found.end_s for by_phase in found.spent[index]),
    )


def _most(values: list[float]) -> float:
    """What 95 of 100 are not above."""
    return quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]
