"""What is wrong with a cluster, and what to do about it. Pure."""

from collections.abc import Iterator

from hyperlane.artifacts import Cluster, Finding, LinkInfo, WorkerInfo

BUSY = 0.5  # processes that want to run, by core
LITTLE = 0.15  # of a worker's memory
SLOW_BYTES_PER_S = 12.5e6  # 100 Mbit/s
FAR_S = 0.003
LOPSIDED = 4.0  # times slower than the other direction
USUAL = 1.3  # times what was timed


def checkup(cluster: Cluster) -> tuple[Finding, ...]:
    """Workers first, then links; nothing where all is well."""
    found = [finding for worker in cluster.workers for finding in _of_worker(worker)]
    found += [
        _finding(f"{one.name} at {one.address}", f"cannot be used: {one.reason}", "start it anew once that is mended")
        for one in cluster.rejected
    ]
    backwards = {(link.target, link.source): link for link in cluster.links}
    for link in cluster.links:
        found += _of_link(link, backwards.get((link.source, link.target)))
    if len(cluster.workers) == 1:
        found.append(_finding("the cluster", "has one worker", "start hyperlane-worker on more machines"))
    return tuple(found)


def _of_worker(worker: WorkerInfo) -> Iterator[Finding]:
    if not worker.speeds:
        yield _finding(worker.name, "was not timed", "see the warning above, or run with measure=always")
    if worker.load > BUSY:
        yield _finding(
            worker.name,
            f"its machine is busy: load {worker.load:.2g} a core",
            "end what else runs there",
        )
    if worker.share < 1:
        yield _finding(
            worker.name,
            f"a CPU quota leaves it {100 * worker.share:.0f} % of its threads' time",
            "raise the quota, or start it with fewer --threads",
        )
    if worker.memory_free_bytes < LITTLE * worker.memory_total_bytes:
        share = 100 * worker.memory_free_bytes / worker.memory_total_bytes
        yield _finding(worker.name, f"only {share:.0f} % of its memory is free", "end what else holds memory there")
    if worker.device == "cpu" and not worker.operators:
        yield _finding(worker.name, "lacks the compiled operators", "install it where a C++ compiler is, with CMake")
    if worker.decode_factor > USUAL:
        yield _finding(
            worker.name,
            f"in runs it took {worker.decode_factor:.2g} times what was timed",
            "look for what else ran, for heat or a power limit; plans count it already",
        )


def _of_link(link: LinkInfo, back: LinkInfo | None) -> Iterator[Finding]:
    name, mbit_s = f"{link.source} -> {link.target}", 8e-6 * link.bytes_per_s
    if back is not None and back.bytes_per_s > LOPSIDED * link.bytes_per_s:
        times = back.bytes_per_s / link.bytes_per_s
        yield _finding(name, f"{mbit_s:,.3g} Mbit/s, {times:.2g} times less than back", "check its cable and limits")
    elif link.bytes_per_s < SLOW_BYTES_PER_S:
        yield _finding(name, f"carries only {mbit_s:,.3g} Mbit/s", "use a cable, and transport/codec=auto or int4")
    if link.latency_s > FAR_S:
        yield _finding(name, f"takes {1e3 * link.latency_s:.3g} ms one way", "use a cable instead of Wi-Fi")


def _finding(subject: str, problem: str, advice: str) -> Finding:
    return Finding(subject=subject, problem=problem, advice=advice)
