"""Plain decode steps in C++ give what the pump's stages in Python give: the same frames, notes and counters."""

import threading
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

import numpy as np
import pytest

from hyperlane.control.types import LinkCounters
from hyperlane.errors import WorkerError
from hyperlane.timeline.record import StepRecord
from hyperlane.transport.frame import WANT_LOGITS, Frame, Kind, Run, pack
from hyperlane.transport.link import connect, open_receiver
from hyperlane.worker.codecs import open_codecs
from hyperlane.worker.pump import Pump
from hyperlane.worker.ragged import RaggedCalls
from hyperlane.worker.session import Session
from hyperlane.worker.worker import _OneAtATime
from tests.fixtures_model import Exported
from tests.worker.fakes import wiring

WAIT_S = 20.0
SLOTS, CONTEXT, WIDTH = 4, 24, 64


@dataclass(frozen=True)
class Pumped:
    frames: list[bytes]
    records: tuple[StepRecord, ...]
    counters: LinkCounters
    turned: int  # steps that C++ did


def pumped(session: Session, frames: Sequence[Frame], *, native: bool, decode_codec: str = "raw") -> Pumped:
    """What a pump between real links makes of these frames, sent one behind another."""
    stop = threading.Event()
    wired = wiring(decode_codec=decode_codec)
    with ExitStack() as exits:
        incoming, home = (
            exits.enter_context(closing(open_receiver("127.0.0.1", 0, name, native=native))) for name in "wc"
        )
        first, answers = (
            exits.enter_context(closing(connect([receiver.address], name, timeout_s=WAIT_S, native=native)))
            for receiver, name in ((incoming, "w"), (home, "c"))
        )
        pump = Pump(incoming, session, answers, wired, open_codecs(wired), "w", "float32")
        thread = threading.Thread(target=pump.run, args=(stop,))
        thread.start()
        try:
            found = []
            for frame in frames:
                first.send(frame, WAIT_S)
                found.append(pack(home.recv(WAIT_S)))
        finally:
            stop.set()
            thread.join(WAIT_S)
        turned = 0 if pump._turn is None else len(pump._turn.records())
        return Pumped(found, pump.records(), pump.counters(), turned)


def steps_of(seed: int, takes_ids: bool) -> list[Frame]:
    """Prompts, decode steps of some slots, pieces, drafts, whole rows, copies, and steps that cannot be."""
    random, live, frames = np.random.default_rng(seed), [0] * SLOTS, []
    for step in range(60):
        flags, kind = 0, random.integers(10)
        slots = random.permutation(SLOTS)[: random.integers(1, SLOTS + 1)].tolist()
        if kind == 0 and live[slots[0]] > 0 and len(slots) > 1:
            payload = np.array(slots[:2], "<u2").tobytes()
            frames.append(Frame(Kind.FORK, 0, 0, 1, 0, step, live[slots[0]], 0, (), payload))
            live[slots[1]] = live[slots[0]]
            continue
        runs = []
        for slot in slots:
            count = int(random.integers(1, 4)) if kind == 1 or live[slot] == 0 else 1
            position = live[slot] + int(kind == 2)  # then one is left out
            runs.append(Run(slot, count if kind == 3 else 1, position, count))
            if kind not in (2, 5) and position + count <= CONTEXT:
                live[slot] += count
        if any(run.position + run.count > CONTEXT for run in runs):
            live = [0] * SLOTS  # it fails, and texts begin anew
        if kind == 4:
            flags = WANT_LOGITS
        if kind == 5:  # a slot twice
            runs = [*runs, runs[0]]
        rows = sum(run.count for run in runs)
        payload, width = random.integers(0, 260, rows).astype("<i4").tobytes(), 1
        if not takes_ids:
            width, payload = WIDTH, random.standard_normal((rows, WIDTH)).astype("<f4").tobytes()
        what = Kind.TOKENS if takes_ids else Kind.HIDDEN
        frames.append(Frame(what, 0, flags, 1, step % 3, step, rows, width, tuple(runs), payload))
    return frames


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(("start", "stop"), [(0, 2), (1, 3), (2, 4)], ids=["first", "middle", "last"])
def test_frames_notes_and_counters_are_the_same(tiny_int8: Exported, start: int, stop: int, seed: int) -> None:
    frames = steps_of(seed, takes_ids=start == 0)
    found, expected = (
        pumped(tiny_int8.session(start, stop, slots=SLOTS, context=CONTEXT), frames, native=native)
        for native in (True, False)
    )
    assert found.frames == expected.frames
    assert [record[:4] for record in found.records] == [record[:4] for record in expected.records]
    for record in found.records:
        assert list(record[4:]) == sorted(record[4:])
    assert found.counters == expected.counters
    assert found.turned > 15
    assert expected.turned == 0


def decode_steps(count: int) -> list[Frame]:
    ids = np.full(1, 7, "<i4").tobytes()
    return [Frame(Kind.TOKENS, 0, 0, 1, 0, n, 1, 1, (Run(0, 1, n, 1),), ids) for n in range(count)]


def test_rows_that_travel_in_a_codec_are_pythons(tiny_int8: Exported) -> None:
    found = pumped(tiny_int8.session(0, 2), decode_steps(5), native=True, decode_codec="int8")
    assert found.turned == 0
    assert found.counters.codec == "int8"


def test_a_step_that_fails_in_onnx_runtime_is_an_error_and_the_next_goes_on(tiny_int8: Exported) -> None:
    frames = decode_steps(4)
    frames[2] = frames[2]._replace(payload=np.full(1, 99999, "<i4").tobytes())
    frames[3] = frames[3]._replace(runs=(Run(0, 1, 2, 1),))
    found, expected = (pumped(tiny_int8.session(0, 2), frames, native=native) for native in (True, False))
    assert found.frames == expected.frames
    assert b"a step of 1 rows failed: " in found.frames[2]
    assert [record.step for record in found.records] == [0, 1, 3]
    assert found.turned == 2


def test_many_rows_stay_with_python(tiny_int8: Exported) -> None:
    session = tiny_int8.session(0, 2)
    assert session.decode_call(64) is not None
    assert session.decode_call(65) is None


def test_without_our_attention_steps_stay_with_python(tiny: Exported) -> None:
    assert tiny.session(0, 2, operators=False).decode_call(1) is None


def test_a_call_that_cannot_be_prepared_leaves_its_steps_to_python(
    tiny_int8: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = decode_steps(4)
    expected = pumped(tiny_int8.session(0, 2), frames, native=True)

    def full(*args: object) -> None:
        raise MemoryError("Unable to allocate 1. GiB")

    monkeypatch.setattr(RaggedCalls, "decode_call", full)
    found = pumped(tiny_int8.session(0, 2), frames, native=True)
    assert found.frames == expected.frames
    assert (found.turned, expected.turned) == (0, 3)


def test_a_call_of_a_closed_session_is_an_error(tiny_int8: Exported) -> None:
    session = tiny_int8.session(0, 2)
    call = session.decode_call(1)
    assert call is not None
    call.run()
    session.close()
    with pytest.raises(WorkerError, match="the session is closed"):
        call.run()


def test_a_call_after_close_is_an_error(tiny_int8: Exported) -> None:
    one = _OneAtATime(tiny_int8.session(0, 2))
    call = one.decode_call(1)
    assert call is not None
    call.run()
    one.close()
    with pytest.raises(WorkerError, match="unloaded while a step"):
        call.run()
    assert one.decode_call(1) is None
