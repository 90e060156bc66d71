"""From what was timed to what a step takes: pure functions of one worker's or one link's figures."""

import functools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hyperlane.artifacts import CodecSpeed, ModelSpec, StepTime, WorkerInfo, WorkerSpeed
from hyperlane.partition.problem import Array

ROWS = (1, 2, 4, 8, 16, 32, 64, 256, 1024)
_LAYER_BYTES = 100_000_000  # of the layer that stands for a machine known by its rates
_BYTES_PER_VALUE = {"none": 4.0, "int8": 1.16, "int4": 0.66}
_CODEC_BYTES = {
    "raw": 0.0,
    "int8": 1.02,
    "h8": 1.03,
    "int4": 0.51,
    "h4": 0.53,
    "int4_plain": 0.53,
}  # a value; raw: its type
_CODEC_S = 2e-9  # to encode or decode a value, where it was not timed
FRAME_BYTES, RUN_BYTES = 110, 10  # a frame's header and checksum with those of TCP, IP and Ethernet; a run of its table


def speed_of_rates(weights: str, bytes_per_s: float, flops_per_s: float, step_s: float) -> WorkerSpeed:
    """A machine of which only its memory's and its arithmetic's sustained rates are known."""
    values = _LAYER_BYTES / value_bytes(weights)

    def layer_s(rows: int) -> float:
        return max(_LAYER_BYTES / bytes_per_s, 2 * rows * values / flops_per_s)

    kv_bytes = 4096
    times = [
        StepTime(
            phase=phase,
            rows=rows,
            past=past,
            layer_s=layer_s(rows) + rows * past * kv_bytes / bytes_per_s * (1.0 if phase == "decode" else 0.1),
            head_s=layer_s(rows if phase == "decode" else 1),
        )
        for phase in ("decode", "prefill")
        for rows in ROWS
        for past in (0, 1024)
    ]
    return WorkerSpeed(
        weights=weights,
        layer_bytes=_LAYER_BYTES,
        head_bytes=_LAYER_BYTES,
        kv_bytes_per_token=kv_bytes,
        step_s=step_s,
        times=tuple(times),
    )


@functools.cache
def assumed() -> WorkerSpeed:
    """A worker that nobody timed."""
    return speed_of_rates("none", 10e9, 50e9, 1e-3)


def value_bytes(weights: str) -> float:
    """How many bytes a weight takes, about."""
    return _BYTES_PER_VALUE.get(weights.partition("-")[0], 4.0)


def speed_for(worker: WorkerInfo, weights: str) -> WorkerSpeed:
    """The worker's figures for weights stored like this; those for others, taken by the byte, where it has none."""
    named = {speed.weights: speed for speed in reversed(worker.speeds)}
    found = named.get(weights) or next(iter(worker.speeds), assumed())
    if worker.decode_factor == worker.prefill_factor == 1:
        return found
    factor = {"decode": worker.decode_factor, "prefill": worker.prefill_factor}
    times = [
        replace(time, layer_s=time.layer_s * factor[time.phase], head_s=time.head_s * factor[time.phase])
        for time in found.times
    ]
    return replace(found, step_s=found.step_s * worker.decode_factor, times=tuple(times))


def layers_s(model: ModelSpec, speed: WorkerSpeed, phase: str, rows: int, past: int) -> Array:
    """[L]: seconds of each layer in a step of `rows`, with `past` positions in the cache."""
    base_s, slope_s = fit(speed.times, phase, rows, "layer_s")
    bytes_L = np.array(model.layer_bytes, float)
    kv_L = np.array(model.kv_bytes_per_token, float)
    return bytes_L / speed.layer_bytes * base_s + kv_L / max(speed.kv_bytes_per_token, 1) * slope_s * rows * past


def head_s(model: ModelSpec, speed: WorkerSpeed, phase: str, rows: int) -> float:
    """Seconds of the final norm, the head and the choice of candidates."""
    base_s, _ = fit(speed.times, phase, rows, "head_s")
    return model.head_bytes / max(speed.head_bytes, 1) * base_s


def fit(times: Sequence[StepTime], phase: str, rows: int, what: str) -> tuple[float, float]:
    """Seconds with nothing in the cache, and what a row takes longer for each position there."""
    own = [time for time in times if time.phase == phase]
    slopes = [
        (getattr(b, what) - getattr(a, what)) / (a.rows * (b.past - a.past))
        for a in own
        for b in own
        if a.rows == b.rows and a.past < b.past
    ]
    slope_s = max(0.0, float(np.median(slopes))) if slopes else 0.0
    least = {r: min(t.past for t in own if t.rows == r) for r in {t.rows for t in own}}
    points = sorted((t.rows, getattr(t, what) - slope_s * t.rows * t.past) for t in own if t.past == least[t.rows])
    return _line(points, rows), slope_s


def _line(points: Sequence[tuple[int, float]], at: int) -> float:
    """Linear between the points; beyond the last in proportion, as large products are."""
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    if at > xs[-1]:
        return ys[-1] * at / xs[-1]
    return max(0.0, float(np.interp(at, xs, ys)))


def frame_cost(
    codecs: Sequence[CodecSpeed], codec: str, rows: int, width: int, runs: int, item_bytes: int
) -> tuple[float, float, float]:
    """Seconds to encode and to decode a frame of hidden rows, and its bytes on the wire."""
    timed = sorted((c for c in codecs if c.codec == codec), key=lambda c: c.rows * c.width)
    values, head = rows * width, FRAME_BYTES + RUN_BYTES * runs
    if not timed:
        payload = values * (_CODEC_BYTES.get(codec, 0.0) or item_bytes)
        cost = 0.0 if codec == "raw" else _CODEC_S * values
        return cost, cost, payload + head
    points = [(c.rows * c.width, c) for c in timed]

    def at(what: str) -> float:
        return _line([(size, float(getattr(c, what))) for size, c in points], values)

    payload = timed[-1].payload_bytes / (timed[-1].rows * timed[-1].width) * values
    return at("encode_s"), at("decode_s"), payload + head
