"""A timeline in Chrome's trace format (chrome://tracing, ui.perfetto.dev): a process a worker, a row a stage."""

import json
from collections.abc import Iterator

from hyperlane.timeline.record import StepRecord
from hyperlane.timeline.timeline import Timeline

COMPUTE, DECODE, ENCODE, WIRE, QUEUE = 1, 2, 3, 4, 5
_ROWS = {COMPUTE: "compute", DECODE: "decode", ENCODE: "encode", WIRE: "wire", QUEUE: "queue"}

Event = dict[str, object]


def trace(timeline: Timeline) -> str:
    """The JSON text; times in microseconds since the first step was sent."""
    start_ns = min((trip.sending_ns for trip in timeline.trips), default=0)
    events = [*_names("coordinator", 0, {COMPUTE: "scheduling and sampling", WIRE: "wire"}), *_coordinator(timeline)]
    for index, line in enumerate(timeline.workers):
        arrivals = timeline.arrivals(index)
        events += _names(line.name, index + 1, _ROWS)
        for step in line.steps:
            events += _step(step, index + 1, arrivals.get(step.step))
    for event in events:
        if "ts" in event:
            event["ts"] = (event["ts"] - start_ns) / 1e3  # type: ignore[operator]
    return json.dumps({"displayTimeUnit": "ms", "traceEvents": events}) + "\n"


def _coordinator(timeline: Timeline) -> Iterator[Event]:
    """The way to the first worker, and what the coordinator does between a result and the next step that it sends."""
    if not timeline.workers:
        return
    first = {step.step: step.arrived_ns for step in timeline.workers[0].steps}
    taken = sorted(trip.taken_ns for trip in timeline.trips)
    at = 0
    for trip in sorted(timeline.trips, key=lambda trip: trip.sending_ns):
        args: Event = {"step": trip.step}
        if trip.step in first:
            yield _span("wire", 0, WIRE, trip.sent_ns, first[trip.step], args)
        while at + 1 < len(taken) and taken[at + 1] <= trip.sending_ns:
            at += 1
        if taken[at] <= trip.sending_ns:
            yield _span("turn", 0, COMPUTE, taken[at], trip.sending_ns, args)


def _step(step: StepRecord, process: int, arrived_next_ns: int | None) -> Iterator[Event]:
    args: Event = {"step": step.step, "lane": step.lane, "rows": step.rows}
    name = f"{'prefill' if step.prefill else 'decode'} {step.rows}" if step.rows else "copy"
    yield _span("queue", process, QUEUE, step.arrived_ns, step.taken_ns, args)
    yield _span("decode", process, DECODE, step.taken_ns, step.decoded_ns, args)
    yield _span(name, process, COMPUTE, step.started_ns, step.computed_ns, args)
    yield _span("encode", process, ENCODE, step.encoding_ns, step.encoded_ns, args)
    if arrived_next_ns is not None:
        yield _span("wire", process, WIRE, step.encoded_ns, arrived_next_ns, args)


def _span(name: str, process: int, row: int, start_ns: int, stop_ns: int, args: Event) -> Event:
    duration_us = max(0, stop_ns - start_ns) / 1e3
    return {"name": name, "ph": "X", "pid": process, "tid": row, "ts": start_ns, "dur": duration_us, "args": args}


def _names(name: str, process: int, rows: dict[int, str]) -> Iterator[Event]:
    yield {"name": "process_name", "ph": "M", "pid": process, "args": {"name": name}}
    yield {"name": "process_sort_index", "ph": "M", "pid": process, "args": {"sort_index": process}}
    for row, text in rows.items():
        yield {"name": "thread_name", "ph": "M", "pid": process, "tid": row, "args": {"name": text}}
