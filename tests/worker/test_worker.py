"""The worker's states, without ONNX and sockets."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hyperlane.control.types import State, Step
from hyperlane.errors import StoreError, TransportError, WorkerError
from hyperlane.model.store import LayerStore
from hyperlane.transport.frame import WANT_LOGITS, Run
from tests.worker.fakes import Workshop, shard_spec, wiring


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    workshop = Workshop(tmp_path)
    yield workshop
    workshop.close()


@pytest.fixture
def store(tmp_path: Path) -> LayerStore:
    """The store of the worker called w."""
    return LayerStore(tmp_path / "w")


def tokens(*ids: int, epoch: int = 1, flags: int = 0, position: int = 0) -> Step:
    runs = (Run(0, 1, position, len(ids)),)
    ids_R = np.array(ids, np.int32)
    return Step(epoch=epoch, lane=0, step=5, flags=flags, runs=runs, tokens_R=ids_R)


def test_goes_from_empty_to_ready_and_back(workshop: Workshop, store: LayerStore) -> None:
    worker = workshop.worker()
    assert worker.stats().state is State.EMPTY
    worker.load(shard_spec(store))
    assert worker.stats().state is State.LOADED
    assert worker.wire(wiring()).address == "127.0.0.1:9"
    assert worker.stats().state is State.READY
    worker.unload()
    assert worker.stats().state is State.EMPTY
    assert workshop.links[0].closed
    assert workshop.pumps[0].stopped
    assert workshop.sessions[0].closed


def test_stats_tell_what_it_holds(workshop: Workshop, store: LayerStore) -> None:
    worker, spec = workshop.worker(), shard_spec(store, start=2, stop=5)
    worker.load(spec)
    worker.wire(wiring(epoch=7))
    stats = worker.stats()
    worker.unload()
    assert stats.shard is not None
    assert (stats.shard.start, stats.shard.stop, stats.shard.graph_sha256) == (2, 5, spec.graph.sha256)
    assert (stats.memory_total_bytes, stats.memory_free_bytes, stats.memory_used_bytes) == (1000, 600, 400)
    assert stats.epoch == 7
    assert stats.links[0].wire_bytes == 30
    assert stats.rejected == ("bad magic",)
    assert stats.received_bytes == 70


def test_same_shard_is_not_loaded_again(workshop: Workshop, store: LayerStore) -> None:
    worker, spec = workshop.worker(), shard_spec(store)
    assert worker.load(spec)[0] is True
    assert worker.load(spec) == (False, 0.0)
    assert len(workshop.sessions) == 1


def test_another_shard_replaces_the_one_held_and_its_wiring(workshop: Workshop, store: LayerStore) -> None:
    worker = workshop.worker()
    worker.load(shard_spec(store))
    worker.wire(wiring())
    worker.load(shard_spec(store, context=128))
    assert worker.stats().state is State.LOADED
    assert workshop.pumps[0].stopped


def test_altered_file_is_noticed_at_load_and_the_old_shard_stays(workshop: Workshop, store: LayerStore) -> None:
    worker, spec = workshop.worker(), shard_spec(store)
    worker.load(shard_spec(store, stop=2))
    store.path(spec.weights[0].sha256).write_bytes(b"other" * 1400)
    with pytest.raises(StoreError, match="truncated or altered"):
        worker.load(spec)
    assert worker.stats().shard is not None


def test_wiring_without_a_shard_is_refused(workshop: Workshop) -> None:
    with pytest.raises(WorkerError, match="worker w holds no shard; run stages"):
        workshop.worker().wire(wiring())


def test_wiring_twice_the_same_way_does_nothing(workshop: Workshop, store: LayerStore) -> None:
    worker = workshop.worker()
    worker.load(shard_spec(store))
    worker.wire(wiring())
    worker.wire(wiring())
    worker.unload()
    assert len(workshop.pumps) == 1


def test_new_epoch_ends_the_old_pump(workshop: Workshop, store: LayerStore) -> None:
    worker = workshop.worker()
    worker.load(shard_spec(store))
    worker.wire(wiring(epoch=1))
    worker.wire(wiring(epoch=2))
    assert workshop.pumps[0].stopped
    assert workshop.links[0].closed
    assert worker.stats().epoch == 2
    with pytest.raises(WorkerError, match="epoch 1 is over on worker w"):
        worker.wire(wiring(epoch=1))
    with pytest.raises(WorkerError, match="epoch 2 is over on worker w"):
        worker.wire(wiring(epoch=2, identity="another#run"))
    with pytest.raises(WorkerError, match="holds another shard by now"):
        worker.wire(wiring(epoch=3, graph_sha256="0" * 64))
    worker.unload()


def test_unreachable_next_leaves_the_shard_loaded(workshop: Workshop, store: LayerStore) -> None:
    worker = workshop.worker()
    worker.load(shard_spec(store))
    workshop.unreachable = True
    with pytest.raises(TransportError, match="cannot reach next#02"):
        worker.wire(wiring())
    assert worker.stats().state is State.LOADED


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (TransportError("the next worker is gone"), "the next worker is gone"),
        (ZeroDivisionError("a fault of ours"), "ZeroDivisionError: a fault of ours"),
    ],
)
def test_failed_pump_is_told_and_can_be_wired_again(
    workshop: Workshop, store: LayerStore, failure: Exception, told: str
) -> None:
    worker = workshop.worker()
    worker.load(shard_spec(store))
    worker.wire(wiring(epoch=1))
    workshop.pumps[0].failure = failure
    workshop.pumps[0].fail.set()
    workshop.threads[0].join(10)
    assert worker.stats().failure == told
    assert worker.stats().state is State.LOADED
    worker.wire(wiring(epoch=2))
    assert worker.stats().failure == ""
    assert worker.stats().state is State.READY
    worker.unload()


def test_executes_steps_without_data_links(workshop: Workshop, store: LayerStore) -> None:
    worker = workshop.worker()
    worker.load(shard_spec(store))
    assert worker.wire(wiring(data_addresses=())).address == ""
    assert worker.stats().state is State.WIRED
    steps = [tokens(1, 2), tokens(5, flags=WANT_LOGITS)]
    candidates, logits = list(worker.execute(iter(steps), 5.0))
    assert candidates.candidates is not None
    np.testing.assert_array_equal(candidates.candidates.logits_NK[:, 0], [10, 12])
    np.testing.assert_array_equal(logits.logits_NV, [[9, 9]])
    assert candidates.tokens_R is None


def test_step_after_unload_becomes_an_error_step(workshop: Workshop, store: LayerStore) -> None:
    worker = workshop.worker()
    worker.load(shard_spec(store))
    worker.wire(wiring(data_addresses=()))
    replies = worker.execute(iter([tokens(1), tokens(2)]), 5.0)
    assert next(replies).error is None
    worker.unload()
    assert next(replies).error == "worker w: the shard was unloaded while a step was on its way"


def test_execute_unwired_is_refused(workshop: Workshop) -> None:
    with pytest.raises(WorkerError, match="not wired to a chain"):
        list(workshop.worker().execute(iter([tokens(1)]), 5.0))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (tokens(1, epoch=9), "worker w: step 5 is of epoch 9, the chain of 1"),
        (tokens(1, position=64), "worker w: position 64 is beyond the context of 64"),
        (Step(epoch=1, lane=0, step=5, flags=0, runs=(), error="earlier"), "earlier"),
        (Step(epoch=1, lane=0, step=5, flags=0, runs=()), "worker w: step 5 carries neither"),
    ],
)
def test_step_that_fails_becomes_an_error_step(workshop: Workshop, store: LayerStore, step: Step, message: str) -> None:
    worker = workshop.worker()
    worker.load(shard_spec(store))
    worker.wire(wiring(data_addresses=()))
    failed, fine = worker.execute(iter([step, tokens(1)]), 5.0)
    assert failed.error is not None
    assert failed.error.startswith(message)
    assert fine.error is None


def test_rows_and_runs_that_disagree_are_refused(workshop: Workshop, store: LayerStore) -> None:
    worker = workshop.worker()
    worker.load(shard_spec(store))
    worker.wire(wiring(data_addresses=()))
    step = Step(epoch=1, lane=0, step=5, flags=0, runs=(Run(0, 1, 0, 3),), tokens_R=np.array([1], np.int32))
    (failed,) = worker.execute(iter([step]), 5.0)
    assert failed.error == "worker w: step 5 has 1 rows, its runs 3"
