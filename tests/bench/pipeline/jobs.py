"""One measurement in a process of its own, as a line of JSON: `python -m tests.bench.pipeline.jobs JOB '{...}'`.

A job that fails says so and leaves the GPU free for the next one.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hyperlane.artifacts import Manifest
from hyperlane.model.store import LayerStore
from hyperlane.partition.balanced import balanced_bounds
from hyperlane.timeline.timeline import Timeline, busy_shares
from hyperlane.transport.frame import Run
from tests.bench.pipeline import bare, hf, steps
from tests.bench.pipeline.bare import BareChain
from tests.bench.pipeline.fleet import chain_of, fleet
from tests.bench.pipeline.parts import Variant, fill

PAST = 256
TIMED = 96
MOST_KERNELS = 16
LAYER_PERCENT, HEAD_PERCENT = 100, 160  # the head and its candidates by a layer, on an H100, eight rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is measured, where. `weights` is one a worker, or one for all."""

    parts: str
    store: str
    shape: str = "7b"
    weights: Sequence[str] = ("fp16",)
    devices: Sequence[str] = ("cuda:0", "cuda:0")
    codec: str = "int4"
    batches: Sequence[int] = (1, 8, 32)
    lanes: Sequence[Sequence[int]] = ()  # pairs: lanes, rows of each
    prefills: Sequence[int] = (512, 2048)
    chunk: int = 512
    slots: int = 32
    context: int = 2304
    graphs: bool = True
    shortcut: bool = True
    bounds: Sequence[int] = ()  # of the shards' layers; empty: so that all take about as long
    compare: Sequence[str] = ("eager", "compiled")  # of HF
    extra: Sequence[str] = ()


def pipeline(job: Job) -> Iterator[tuple[str, float]]:
    """Workers on `devices` through their links."""
    with _chain(job) as (driver, manifest):
        yield from _prefills(job, lambda n: steps.prefill_s(driver, n, min(job.chunk, n), manifest.vocab_size))
        steps.fill_slots(driver, job.slots, PAST, manifest.vocab_size)
        before, frames = _sent(driver), 0
        for lanes, rows in [*((1, batch) for batch in job.batches), *job.lanes]:
            first = driver.number
            seconds = steps.decode_s(driver, lanes, rows, PAST, TIMED)
            yield f"decode {lanes}x{rows} ms", 1e3 * seconds
            numbers = range(first + lanes * TIMED // 4, driver.number + 1)
            timeline = driver.chain.timeline().part(numbers)
            if (lanes, rows) in ((1, 1), (1, 32), (4, 8)):
                yield from _stages(timeline)
            shares = busy_shares(timeline)
            for index, share in enumerate(shares):
                yield f"decode {lanes}x{rows} busy {index}", share or 0.0
            after = _sent(driver)
            frames = after[0] - before[0]
            yield f"decode {lanes}x{rows} bytes a frame", (after[1] - before[1]) / max(frames, 1)
            yield (
                f"decode {lanes}x{rows} bytes of rows by FP16 a second",
                (after[2] - before[2]) / max(frames, 1) * (lanes / seconds),
            )
            before = after
        yield f"link: {driver.chain.reports()[1].codec}", 0.0


def without_links(job: Job) -> Iterator[tuple[str, float]]:
    """The same shards in one process."""
    store, (manifest, *_) = _manifests(job)
    chain = BareChain(
        manifest,
        store,
        _bounds(job, manifest),
        job.devices[0],
        slots=job.slots,
        context=job.context,
        graphs=job.graphs,
    )
    _save_rows(job, chain, manifest)
    yield from _prefills(job, lambda n: bare.prefill_s(chain, n, min(job.chunk, n), manifest.vocab_size))
    for batch in job.batches:
        yield f"decode 1x{batch} ms", 1e3 * bare.decode_s(chain, batch, PAST, TIMED)
    chain.close()


def profile(job: Job) -> Iterator[tuple[str, float]]:
    """Where the GPU's time goes in a decode step of the shards in one process: microseconds a step, by kernel."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    store, (manifest, *_) = _manifests(job)
    bounds = _bounds(job, manifest)
    chain = BareChain(manifest, store, bounds, job.devices[0], slots=job.slots, context=job.context, graphs=job.graphs)
    _save_rows(job, chain, manifest)
    for batch in job.batches:
        yield f"decode 1x{batch} ms", 1e3 * bare.decode_s(chain, batch, PAST, TIMED)
        with profiled(activities=[ProfilerActivity.CUDA]) as record:
            bare.decode_s(chain, batch, PAST, 8)
        found = sorted(record.key_averages(), key=lambda event: -event.self_device_time_total)
        for event in found[:MOST_KERNELS]:
            yield f"1x{batch}: {event.count / 8:g} x {event.key[:100]}", event.self_device_time_total / 8


def transformers(job: Job) -> Iterator[tuple[str, float]]:
    """HF's model of the shape."""
    model = hf.load(job.shape, job.devices)
    yield from _prefills(job, lambda n: hf.prefill_s(model, n))
    for compiled in (name == "compiled" for name in job.compare):
        if compiled and len(job.devices) > 1:  # a captured graph is one GPU's
            continue
        for batch in job.batches if compiled or len(job.devices) > 1 else job.batches[:1]:
            seconds = hf.decode_s(model, batch, PAST, TIMED, context=PAST + TIMED + 32, compiled=compiled)
            yield f"decode 1x{batch} ms, {'compiled' if compiled else 'eager'}", 1e3 * seconds


def agreement(job: Job) -> Iterator[tuple[str, float]]:
    """Teacher-forced tokens of the first weights on the first device against those of FP32 on the CPU."""
    texts = np.random.default_rng(11).integers(0, 4096, (6, 256))
    exact = _forced(job, "fp32", "cpu", texts)
    for weights in job.weights:
        found = _forced(job, weights, job.devices[0], texts)
        yield f"{weights} on {job.devices[0]} agrees with FP32 on the CPU", float((found == exact).mean())


def mixed(job: Job) -> Iterator[tuple[str, float]]:
    """Greedy tokens of a chain over `devices` against those of FP32 alone on the CPU."""
    prompts = np.random.default_rng(12).integers(0, 4096, (6, 40)).tolist()
    store = LayerStore(Path(job.store))
    manifest = fill(Path(job.parts), Variant(job.shape, "fp32"), store)
    alone = BareChain(manifest, store, (0, manifest.layers), "cpu", slots=2, context=128)
    expected = [_greedy(alone, prompt, 24) for prompt in prompts]
    with _chain(job) as (driver, _):
        found = [steps.continued(driver, 1, prompt, 24) for prompt in prompts]
    same = [
        next((i for i, (a, b) in enumerate(zip(x, y, strict=True)) if a != b), 24)
        for x, y in zip(found, expected, strict=True)
    ]
    yield f"{'+'.join(job.devices)} {job.codec}: texts the same as on one CPU", sum(n == 24 for n in same) / len(same)
    yield f"{'+'.join(job.devices)} {job.codec}: tokens until the first other one, mean", float(np.mean(same))


JOBS: Mapping[str, Callable[[Job], Iterator[tuple[str, float]]]] = {
    "pipeline": pipeline,
    "bare": without_links,
    "hf": transformers,
    "profile": profile,
    "agreement": agreement,
    "mixed": mixed,
}


@contextmanager
def _chain(job: Job) -> Iterator[tuple[steps.Driver, Manifest]]:
    store, manifests = _manifests(job)
    extra = [*job.extra, *([] if job.graphs else ["--no-cuda-graphs"])]
    bounds = _bounds(job, manifests[0])
    with (
        tempfile.TemporaryDirectory() as logs,
        fleet(Path(job.store), job.devices, Path(logs), extra) as workers,
    ):
        try:
            with chain_of(
                workers,
                manifests,
                store,
                bounds=bounds,
                slots=job.slots,
                context=job.context,
                codec=job.codec,
                rows=_rows_file(job),
                shortcut=job.shortcut,
            ) as chain:
                yield steps.Driver(chain), manifests[0]
        except BaseException:
            for log in sorted(Path(logs).glob("*.log")):
                print(f"{log.name}: {log.read_text()[-1500:]}", file=sys.stderr)
            raise


def _manifests(job: Job) -> tuple[LayerStore, list[Manifest]]:
    store = LayerStore(Path(job.store))
    weights = list(job.weights) * (len(job.devices) if len(job.weights) == 1 else 1)
    return store, [fill(Path(job.parts), Variant(job.shape, kind), store) for kind in weights]


def _bounds(job: Job, manifest: Manifest) -> list[int]:
    return list(job.bounds) or balanced_bounds([LAYER_PERCENT] * manifest.layers, HEAD_PERCENT, len(job.devices))


def _prefills(job: Job, measure: Callable[[int], float]) -> Iterator[tuple[str, float]]:
    for tokens in job.prefills:
        yield f"prefill {tokens} ms", 1e3 * measure(tokens)


def _save_rows(job: Job, chain: BareChain, manifest: Manifest) -> None:
    ids = np.random.default_rng(4).integers(0, manifest.vocab_size, 512).tolist()
    np.save(_rows_file(job), chain.hidden(ids))


def _rows_file(job: Job) -> Path:
    """Hidden states at the first boundary, which the job `bare` leaves for the codecs of the others."""
    return Path(job.store) / f"hidden-{job.shape}-{len(job.devices)}.npy"


def _stages(timeline: Timeline) -> Iterator[tuple[str, float]]:
    """Of each worker: the median microseconds of a step from its frame's arrival to its result's sending."""
    for index, line in enumerate(timeline.workers):
        times = np.array([step[4:] for step in line.steps], np.int64)
        spans = np.median(np.diff(times, axis=1), axis=0) / 1e3
        for name, span in zip(("queued", "decode", "wait", "compute", "wait", "encode", "send"), spans, strict=True):
            yield f"worker {index} {name} us", float(span)


def _sent(driver: steps.Driver) -> tuple[int, int, int]:
    report = driver.chain.reports()[1]
    return report.frames, report.wire_bytes, report.fp16_bytes


def _forced(job: Job, weights: str, device: str, texts: Any) -> Any:
    store = LayerStore(Path(job.store))
    manifest = fill(Path(job.parts), Variant(job.shape, weights), store)
    chain = BareChain(manifest, store, (0, manifest.layers // 2, manifest.layers), device, slots=2, context=512)
    found = []
    for text in texts.tolist():
        half = len(text) // 2  # half of it in one piece, the rest token by token
        result = chain.step([Run(1, half, 0, half)], text[:half])
        assert result.ids_NK is not None
        found.append(result.ids_NK[:, 0].copy())
        for position in range(half, len(text)):
            result = chain.step([Run(1, 1, position, 1)], [text[position]])
            assert result.ids_NK is not None
            found.append(result.ids_NK[:, 0].copy())
    chain.close()
    return np.concatenate(found)


def _greedy(chain: BareChain, prompt: Sequence[int], count: int) -> list[int]:
    found: list[int] = []
    position, ids = 0, list(prompt)
    while len(found) < count:
        result = chain.step([Run(1, 1, position, len(ids))], ids)
        assert result.ids_NK is not None
        position += len(ids)
        ids = [int(result.ids_NK[0, 0])]
        found += ids
    return found


def main(argv: Sequence[str]) -> None:
    begin_s, job = time.perf_counter(), Job(**json.loads(argv[1]))
    for what, value in JOBS[argv[0]](job):
        print(json.dumps({"what": what, "value": value}), flush=True)
    print(json.dumps({"what": "seconds", "value": time.perf_counter() - begin_s}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
