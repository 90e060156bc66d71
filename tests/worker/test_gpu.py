"""What of a GPU worker needs no GPU: how rows are copied, how payloads travel, and which workers a machine gets."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from hyperlane.errors import ConfigError, WorkerError
from hyperlane.transport.codec.device import cuda
from hyperlane.transport.link import SPIN_US
from hyperlane.worker import all_gpus
from hyperlane.worker.device_call import refuse_float32
from hyperlane.worker.gpu import DeviceRows, Gpu, on_host, segments
from hyperlane.worker.options import GPU_SPIN_US, parse
from hyperlane.worker.signature import Value


def test_rows_that_follow_one_another_are_one_copy() -> None:
    assert list(segments([(0, 4, 1), (1, 5, 1), (2, 6, 3)])) == [(0, 4, 5)]
    assert list(segments([(0, 0, 1), (1, 2, 1), (2, 3, 1)])) == [(0, 0, 1), (1, 2, 2)]
    assert list(segments([])) == []


def test_rows_on_a_gpu_are_copied_where_the_host_wants_them() -> None:
    copied: list[tuple[int, int]] = []
    stream = SimpleNamespace(
        wait=lambda event: None, synchronize=lambda: None, copy=lambda to, at, size: copied.append((at, size))
    )
    gpu = cast(Gpu, SimpleNamespace(use=lambda: None, stream=stream))
    rows = DeviceRows(gpu=gpu, address=64, shape=(3, 8), dtype=np.dtype(np.float16), there=None, read=None, memory=None)
    assert on_host(rows).shape == (3, 8)
    assert copied == [(64, 48)]
    values = np.ones((2, 2), np.float32)
    assert on_host(values) is values


def test_fused_attention_in_fp32_is_refused_with_what_to_do() -> None:
    refuse_float32([Value("past_key.0", np.float16, (1, 2, 3, 4))])
    with pytest.raises(WorkerError, match=r"set model\.dtype=float16"):
        refuse_float32([Value("past_key.0", np.float32, (1, 2, 3, 4))])


@pytest.mark.skipif(cuda() is not None, reason="a GPU is there")
def test_without_a_gpu_it_says_so() -> None:
    with pytest.raises(WorkerError, match="no GPU cuda:2"):
        Gpu(2)


def test_a_worker_for_each_gpu_has_its_own_name_device_and_ports() -> None:
    words = ["--all-gpus", "--name", "box", "--control-port", "7000", "--cluster", "lab"]
    made = [parse(each) for each in all_gpus.commands(parse(words), words, 2)]
    assert [(one.name, one.device, one.control_port, one.data_port) for one in made] == [
        ("box-0", "cuda:0", 7000, 0),
        ("box-1", "cuda:1", 7001, 0),
    ]
    assert all(one.parent_stdin and not one.all_gpus and one.cluster == "lab" for one in made)


def test_gpu_workers_wait_busily_for_as_long_as_a_step_takes() -> None:
    assert parse([]).spin_us == SPIN_US
    assert parse(["--device", "cuda:0"]).spin_us == GPU_SPIN_US
    assert parse(["--device", "cuda:0", "--spin-us", "5"]).spin_us == 5


def test_fewer_pinned_frames_than_a_link_queues_are_refused() -> None:
    with pytest.raises(ConfigError, match="--pinned-frames is 8; a link queues 8"):
        parse(["--pinned-frames", "8"])


def test_a_machine_without_gpus_has_no_workers_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    import trio

    monkeypatch.setattr(all_gpus, "cuda", lambda: None)
    with pytest.raises(ConfigError, match="--all-gpus finds no GPU"):
        trio.run(all_gpus.serve_all, parse([]), cast(Any, []))
