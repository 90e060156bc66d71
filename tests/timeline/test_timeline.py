"""Two workers and three steps, of which every time is known."""

import json
import xml.etree.ElementTree as ET

import pytest

from hyperlane.timeline.clocks import Asked, offset_ns
from hyperlane.timeline.plot import MOST_STEPS, draw_timeline
from hyperlane.timeline.record import StepRecord, Trip
from hyperlane.timeline.timeline import Timeline, WorkerLine, busy_shares, step_times
from hyperlane.timeline.trace import trace

US = 1000


def record(step: int, arrived: int, compute: int, *, queue: int = 0, prefill: bool = False) -> StepRecord:
    """Times in microseconds: decode takes 10, encode 20, send 5."""
    times = [arrived, arrived + queue]
    for took in (10, 0, compute, 0, 20, 5):
        times.append(times[-1] + took)
    return StepRecord(step, step % 2, 4, prefill, *(US * time for time in times))


TIMELINE = Timeline(
    (
        WorkerLine("a", (record(1, 100, 300, prefill=True), record(2, 500, 100), record(3, 1000, 100, queue=7))),
        WorkerLine("b<&", (record(1, 440, 400, prefill=True), record(2, 900, 100), record(3, 1160, 100))),
    ),
    (
        Trip(1, 80 * US, 90 * US, 900 * US, 905 * US),
        Trip(2, 90 * US, 95 * US, 1050 * US, 1060 * US),
        Trip(3, 980 * US, 990 * US, 1300 * US, 1301 * US),
    ),
)


def test_busy_is_compute_by_the_time_between_the_first_and_the_last() -> None:
    elapsed = 1270 - 110
    assert busy_shares(TIMELINE) == pytest.approx((500 / elapsed, 600 / elapsed))


def test_times_are_means_by_phase() -> None:
    (prefill, decode), (_, last) = step_times(TIMELINE)
    assert (prefill.phase, prefill.steps, prefill.rows) == ("prefill", 1, 4)
    assert prefill.compute_s == pytest.approx(300e-6)
    assert prefill.wire_s == pytest.approx((440 - 430) * 1e-6)
    assert (decode.phase, decode.steps) == ("decode", 2)
    assert (decode.compute_s, decode.encode_s, decode.decode_s) == pytest.approx((100e-6, 20e-6, 10e-6))
    assert decode.queue_s == pytest.approx(3.5e-6)
    assert decode.wire_s == pytest.approx(((900 - 630) + (1160 - 1137)) / 2 * 1e-6)
    assert decode.bubble_s == pytest.approx(((500 - 435) + (1007 - 635)) / 2 * 1e-6)
    assert last.wire_s == pytest.approx(((1050 - 1030) + (1300 - 1290)) / 2 * 1e-6)


def test_copies_are_shown_and_are_no_steps_of_a_phase() -> None:
    copy = record(2, 500, 100)._replace(rows=0)
    line = WorkerLine("a", (record(1, 100, 300), copy))
    timeline = Timeline((line,), TIMELINE.trips)
    ((decode,),) = step_times(timeline)
    assert decode.steps == 1
    assert "copy" in {event["name"] for event in json.loads(trace(timeline))["traceEvents"]}
    assert "lane 0, copy" in draw_timeline(timeline)


def test_a_trace_has_a_process_a_worker_and_a_row_a_stage() -> None:
    events = json.loads(trace(TIMELINE))["traceEvents"]
    names = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {0: "coordinator", 1: "a", 2: "b<&"}
    computes = [event for event in events if event.get("ph") == "X" and event["pid"] == 1 and event["tid"] == 1]
    assert [(event["ts"], event["dur"]) for event in computes] == [(30, 300), (430, 100), (937, 100)]
    assert computes[0]["args"] == {"step": 1, "lane": 1, "rows": 4}
    assert computes[0]["name"] == "prefill 4"
    wires = [event["dur"] for event in events if event["name"] == "wire" and event["pid"] == 0]
    assert wires == [100 - 90, 500 - 95, 1000 - 990]
    turns = [(event["ts"], event["dur"]) for event in events if event["name"] == "turn"]
    assert turns == [(825, 75)]


def test_a_plot_is_svg_with_each_worker_and_its_share() -> None:
    svg = draw_timeline(TIMELINE)
    root = ET.fromstring(svg)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "b<&" in texts
    assert f"busy {100 * 500 / 1160:.1f} %" in texts
    assert svg.count("compute, step") == 6


def test_a_plot_of_a_long_run_shows_the_middle_of_it() -> None:
    steps = range(1000)
    line = WorkerLine("a", tuple(record(step, 1000 * step, 500) for step in steps))
    trips = tuple(Trip(step, 0, 0, US * (1000 * step + 600), US * (1000 * step + 601)) for step in steps)
    svg = draw_timeline(Timeline((line,), trips))
    assert svg.count("compute, step") == MOST_STEPS
    assert "compute, step 500," in svg


def test_a_run_without_steps_is_drawn_too() -> None:
    empty = Timeline((WorkerLine("a", ()),), ())
    ET.fromstring(draw_timeline(empty))
    json.loads(trace(empty))
    assert busy_shares(empty) == (None,)
    assert step_times(empty) == ((),)


def test_clocks_of_one_machine_are_one_clock() -> None:
    assert offset_ns([Asked(100, 900, 1000), Asked(2000, 2010, 2100)]) == 0


def test_the_quickest_answer_tells_how_far_a_clock_is_ahead() -> None:
    ahead = 5_000_000
    questions = [Asked(0, 900 + ahead, 1000), Asked(2000, 2050 + ahead, 2100), Asked(3000, 3010 + ahead, 3500)]
    assert offset_ns(questions) == ahead
    moved = record(1, 100, 50).shifted(ahead)
    assert moved.arrived_ns == 100 * US - ahead
    assert moved.sent_ns - moved.arrived_ns == 85 * US
    assert (moved.step, moved.rows) == (1, 4)
