import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from hyperlane.errors import WorkerError
from hyperlane.transport.frame import Run
from hyperlane.worker.session import Session
from tests.fixtures_model import Chain, Exported

CONTEXT = 32
TEXT_A, TEXT_B, TEXT_C = ([int(i) for i in np.random.default_rng(seed).integers(0, 260, CONTEXT)] for seed in (1, 2, 3))


@pytest.fixture(params=["operators", "lowered", "in pieces"])
def chain(request: pytest.FixtureRequest, tiny: Exported) -> Chain:
    """With our own attention, as workers without it compute, and as GPUs compute in FP32."""
    kind = request.param
    return tiny.chain(0, 1, 4, slots=8, context=CONTEXT, operators=kind == "operators", fused=kind != "in pieces")


def logits(chain: Chain, runs: Sequence[Run], *texts: Sequence[int]) -> NDArray[Any]:
    """Logits [N, V] of a step whose runs take their tokens from `texts`, at their positions."""
    ids = [i for run, text in zip(runs, texts, strict=True) for i in text[run.position : run.position + run.count]]
    result = chain.step(runs, ids, want_logits=True)
    assert result.logits_NV is not None
    return result.logits_NV


def alone(tiny: Exported, text: Sequence[int], count: int) -> NDArray[Any]:
    """Logits [count, V] of a text in one go, in a chain of its own."""
    return logits(tiny.chain(0, 4, slots=1, context=CONTEXT), [Run(0, count, 0, count)], text)


def assert_close(found: NDArray[Any], expected: NDArray[Any]) -> None:
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_chunks_and_single_steps_give_what_one_pass_gives(tiny: Exported, chain: Chain) -> None:
    found = [logits(chain, [Run(5, n, start, n)], TEXT_A) for start, n in ((0, 7), (7, 1), (8, 3), (11, 1))]
    assert_close(np.concatenate(found), alone(tiny, TEXT_A, 12))


def test_a_step_may_mix_prefill_and_decode_in_any_order(tiny: Exported, chain: Chain) -> None:
    logits(chain, [Run(6, 0, 0, 9), Run(0, 0, 0, 4)], TEXT_A, TEXT_B)
    runs = [Run(6, 1, 9, 1), Run(2, 2, 0, 5), Run(7, 1, 0, 1), Run(0, 1, 4, 1)]
    found = logits(chain, runs, TEXT_A, TEXT_C, TEXT_C, TEXT_B)
    expected_A, expected_B, expected_C = (alone(tiny, text, 10) for text in (TEXT_A, TEXT_B, TEXT_C))
    assert_close(found, np.stack([expected_A[9], *expected_C[3:5], expected_C[0], expected_B[4]]))


def test_an_idle_slot_between_decoding_ones_keeps_its_sequence(tiny: Exported, chain: Chain) -> None:
    logits(chain, [Run(0, 0, 0, 4), Run(1, 0, 0, 6), Run(2, 0, 0, 2)], TEXT_A, TEXT_B, TEXT_C)
    for step in range(5):
        logits(chain, [Run(0, 1, 4 + step, 1), Run(2, 1, 2 + step, 1)], TEXT_A, TEXT_C)
    found = logits(chain, [Run(1, 3, 6, 3)], TEXT_B)
    assert_close(found, alone(tiny, TEXT_B, 9)[6:])


def test_a_full_idle_slot_writes_over_no_neighbour(tiny: Exported, chain: Chain) -> None:
    logits(chain, [Run(1, 0, 0, CONTEXT), Run(2, 0, 0, 8), Run(0, 0, 0, 3)], TEXT_A, TEXT_B, TEXT_C)
    found = logits(chain, [Run(0, 1, 3, 1), Run(2, 1, 8, 1)], TEXT_C, TEXT_B)
    assert_close(found, np.stack([alone(tiny, TEXT_C, 4)[3], alone(tiny, TEXT_B, 9)[8]]))


def test_a_slot_is_used_again_from_any_earlier_position(tiny: Exported, chain: Chain) -> None:
    logits(chain, [Run(3, 0, 0, 20)], TEXT_A)
    assert_close(logits(chain, [Run(3, 5, 0, 5)], TEXT_B), alone(tiny, TEXT_B, 5))
    assert_close(logits(chain, [Run(3, 2, 3, 2)], TEXT_B), alone(tiny, TEXT_B, 5)[3:])


def test_a_copied_slot_goes_on_where_its_source_was(tiny: Exported, chain: Chain) -> None:
    logits(chain, [Run(5, 0, 0, 9), Run(2, 0, 0, 20)], TEXT_A, TEXT_B)
    for shard in chain.shards:
        shard.copy(5, 2, 6)
    text = [*TEXT_A[:6], *TEXT_C[6:10]]
    assert_close(logits(chain, [Run(2, 4, 6, 4)], text), alone(tiny, text, 10)[6:])
    assert_close(logits(chain, [Run(5, 1, 9, 1)], TEXT_A), alone(tiny, TEXT_A, 10)[9:])
    with pytest.raises(WorkerError, match="slot 2 holds 10 positions, the step starts at 11"):
        logits(chain, [Run(2, 1, 11, 1)], TEXT_A)


@pytest.mark.parametrize(
    ("copy", "message"),
    [
        ((5, 5, 1), "slot 5 cannot copy slot 5"),
        ((5, 8, 1), "cannot copy slot 5 of 8"),
        ((5, 0, 4), "3 positions, .* 4"),
    ],
)
def test_a_copy_of_what_is_not_there_is_refused(chain: Chain, copy: tuple[int, int, int], message: str) -> None:
    logits(chain, [Run(5, 0, 0, 3)], TEXT_A)
    with pytest.raises(WorkerError, match=message):
        chain.shards[1].copy(*copy)


def test_candidates_are_the_largest_logits_and_the_logsumexp_of_all(chain: Chain) -> None:
    runs, ids = [Run(0, 2, 0, 5), Run(4, 1, 0, 1)], [*TEXT_A[:5], TEXT_B[0]]
    whole = chain.step(runs, ids, want_logits=True)
    found = chain.step(runs, ids)
    assert (whole.ids_NK, found.logits_NV, found.hidden_RD) == (None, None, None)
    assert whole.logits_NV is not None
    order = np.argsort(-whole.logits_NV, axis=1, kind="stable")[:, :64]
    np.testing.assert_array_equal(found.ids_NK, order)
    np.testing.assert_array_equal(found.logits_NK, np.take_along_axis(whole.logits_NV, order, 1))
    np.testing.assert_allclose(found.logsumexp_N, np.log(np.exp(whole.logits_NV).sum(1)), rtol=1e-5)


def test_a_step_without_outputs_gives_empty_candidates(chain: Chain) -> None:
    result = chain.step([Run(0, 0, 0, 5)], TEXT_A[:5])
    assert result.ids_NK is not None
    assert result.ids_NK.shape == (0, 64)


def test_results_of_a_step_outlive_the_next(chain: Chain) -> None:
    first = logits(chain, [Run(0, 1, 0, 3)], TEXT_A)
    kept = first.copy()
    logits(chain, [Run(0, 1, 0, 3)], TEXT_B)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    ("runs", "rows", "message"),
    [
        ([Run(0, 1, 0, CONTEXT + 1)], CONTEXT + 1, f"position {CONTEXT} is beyond the context of {CONTEXT}"),
        ([Run(0, 1, CONTEXT, 1)], 1, "beyond the context"),
        ([Run(0, 1, 2**32 - 1, 1)], 1, "beyond the context"),
        ([Run(0, 1, 1, 1)], 1, "slot 0 holds 0 positions, the step starts at 1"),
        ([Run(8, 1, 0, 1)], 1, "no run of a worker with 8 slots"),
        ([Run(0, 3, 0, 2)], 2, "no run of"),
        ([Run(0, 0, 0, 0)], 0, "no run of"),
        ([Run(0, 1, 0, 2)], 3, "3 rows does not match"),
        ([Run(0, 1, 0, 1), Run(0, 1, 1, 1)], 2, "does not match its 2 runs"),
    ],
)
def test_a_run_that_does_not_fit_is_refused(
    tiny: Exported, chain: Chain, runs: list[Run], rows: int, message: str
) -> None:
    with pytest.raises(WorkerError, match=message):
        chain.step(runs, [0] * rows)
    assert_close(logits(chain, [Run(0, 4, 0, 4)], TEXT_A), alone(tiny, TEXT_A, 4))


def test_rows_of_another_width_are_refused(tiny: Exported) -> None:
    with pytest.raises(WorkerError, match=r"rows of shape \(1, 63\) where \(1, 64\) belongs"):
        tiny.session(1, 4).run([Run(0, 1, 0, 1)], np.zeros((1, 63), np.float32))


def test_a_shard_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(WorkerError, match=r"cannot load the shard broken\.onnx: .+") as caught:
        Session(tmp_path / "broken.onnx", slots=1, context=8, threads=1)
    assert "\n" not in str(caught.value)


def test_a_device_that_the_runtime_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(WorkerError, match=r"no CUDA; install hyperlane\[gpu\], or use device=cpu"):
        Session(tmp_path / "any.onnx", slots=1, context=8, threads=1, device="cuda:0")


def test_a_missing_runtime_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(WorkerError, match=r"install hyperlane\[cpu\] or hyperlane\[gpu\]"):
        Session(tmp_path / "any.onnx", slots=1, context=8, threads=1)


def test_two_runtimes_in_one_environment_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0")
    with pytest.raises(WorkerError, match="onnxruntime and onnxruntime-gpu"):
        Session(tmp_path / "any.onnx", slots=1, context=8, threads=1)
