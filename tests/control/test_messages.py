"""What goes into a message comes out of it."""

import numpy as np
import pytest

from hyperlane.artifacts import Blob
from hyperlane.control import messages, steps
from hyperlane.control import worker_pb2 as pb
from hyperlane.control.types import Candidates, CodecTables, CodecTime, LinkSpeed, ShardSpec, Step, Wired, Wiring
from hyperlane.timeline.record import Records, StepRecord
from hyperlane.transport.frame import Run

HEAD = {"epoch": 3, "lane": 1, "step": 9, "flags": 1, "runs": (Run(2, 1, 40, 3),)}


def test_shard_header_survives() -> None:
    blobs = tuple(Blob(sha256=char * 64, bytes=at) for at, char in enumerate("abc"))
    spec = ShardSpec(
        key="k",
        graph=blobs[0],
        weights=blobs[1:],
        start=3,
        stop=7,
        first=False,
        last=True,
        slots=4,
        context=512,
        dtype="float32",
    )
    assert messages.header_from_message(messages.header_to_message(spec)) == spec


@pytest.mark.parametrize("control_address", [None, "10.0.0.2:7070"])
def test_wiring_survives(control_address: str | None) -> None:
    wiring = Wiring(
        epoch=2,
        identity="w#1f",
        data_addresses=("10.0.0.2:7071", "127.0.0.1:7071"),
        control_address=control_address,
        codec="int8",
    )
    assert messages.wiring_from_message(messages.wiring_to_message(wiring)) == wiring


def test_records_survive() -> None:
    steps = (StepRecord(7, 1, 3, True, *range(10**15, 10**15 + 8)), StepRecord(8, 0, 1, False, *range(-8, 0)))
    records = Records(12345678901234, steps)
    assert messages.records_from_message(messages.records_to_message(records)) == records


def test_tables_survive_both_ways() -> None:
    tables = [CodecTables(sha256=char * 64, content=bytes([at, 255])) for at, char in enumerate("ab")]
    wiring = Wiring(
        epoch=2,
        identity="w#1f",
        data_addresses=(),
        control_address=None,
        codec="int4",
        decode_codec="h8",
        tables=tables[0],
        incoming_tables=tables[1],
    )
    assert messages.wiring_from_message(messages.wiring_to_message(wiring)) == wiring
    wired = Wired(address="a:1", codec="raw", decode_codec="h8", refused_tables="why", refused_incoming_tables="w")
    assert messages.wired_from_message(messages.wired_to_message(wired)) == wired


def test_link_speed_survives() -> None:
    time = CodecTime(codec="h8", rows=256, encode_s=1e-5, decode_s=2e-5, payload_bytes=77)
    speed = LinkSpeed(bytes_per_s=1.25e8, latency_s=3e-4, times=(time, time))
    assert messages.speed_from_message(messages.speed_to_message(speed)) == speed


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_hidden_step_survives_bit_for_bit(dtype: str) -> None:
    hidden_RD = np.array([[0.1, -np.inf], [np.nan, -0.0], [3.0, 6e-5]], dtype)
    step = steps.step_from_message(steps.step_to_message(Step(**HEAD, hidden_RD=hidden_RD)))
    assert step.hidden_RD is not None
    assert step.hidden_RD.dtype == dtype
    assert step.hidden_RD.tobytes() == hidden_RD.tobytes()
    assert {name: getattr(step, name) for name in HEAD} == HEAD


def test_candidates_step_survives() -> None:
    candidates = Candidates(
        ids_NK=np.array([[7, 2, 5], [1, 0, 9]], np.int32),
        logits_NK=np.array([[3, 2, 1], [6, 5, 4]], np.float32),
        logsumexp_N=np.array([3.5, 6.25], np.float32),
    )
    step = steps.step_from_message(steps.step_to_message(Step(**HEAD, candidates=candidates)))
    assert step.candidates is not None
    np.testing.assert_array_equal(step.candidates.ids_NK, candidates.ids_NK)
    np.testing.assert_array_equal(step.candidates.logits_NK, candidates.logits_NK)
    np.testing.assert_array_equal(step.candidates.logsumexp_N, candidates.logsumexp_N)


def test_logits_and_error_steps_survive() -> None:
    logits_NV = np.arange(6, dtype=np.float32).reshape(2, 3)
    step = steps.step_from_message(steps.step_to_message(Step(**HEAD, logits_NV=logits_NV)))
    np.testing.assert_array_equal(step.logits_NV, logits_NV)
    assert steps.step_from_message(steps.step_to_message(Step(**HEAD, error="why"))).error == "why"


def test_step_without_payload_is_refused() -> None:
    with pytest.raises(ValueError, match="step 5 carries no payload"):
        steps.step_from_message(pb.Step(step=5))


@pytest.mark.parametrize(
    "tensor",
    [
        pb.Tensor(dtype="float32", shape=[2, 2], data=b"\0" * 15),
        pb.Tensor(dtype="float32", shape=[2, 3], data=b"\0" * 16),
        pb.Tensor(dtype="object", shape=[1], data=b"\0" * 8),
    ],
)
def test_tensor_whose_sizes_disagree_is_refused(tensor: pb.Tensor) -> None:
    with pytest.raises(ValueError, match=r"."):
        steps.step_from_message(pb.Step(hidden=tensor))
