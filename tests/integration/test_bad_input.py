"""Bad input gets one clear line, exit code 2, and nothing lost."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from hyperlane.model.store import file_digest
from tests.integration.cli import Done, environment, error_of, hyperlane
from tests.integration.workers import Worker, running_worker

TINY = ("model=tiny", "generate.context=128", "generate.max_new_tokens=4")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("generate.max_new_tokns=3",),
            "unknown key generate.max_new_tokns; did you mean generate.max_new_tokens?",
        ),
        (("generate.max_new_tokens=many",), "generate.max_new_tokens: "),
        (("generate=5",), "an option is chosen by its name"),
        (("--nonsense",), "unrecognized arguments: --nonsense; --help lists what there is"),
        (("cluster.addresses=[a]",), "cluster.addresses is no key of the cluster that is chosen"),
        (("model=smolm",), "unknown model smolm; did you mean smollm2_135m?"),
        (("model.source=/nowhere/at/all",), "there is no /nowhere/at/all"),
        (("prompt=",), "prompt 1 of 1 is empty"),
        (("prompts_file=/nowhere.jsonl",), "prompts_file=/nowhere.jsonl cannot be read"),
        (("stages=[discover,paln]",), "unknown stage paln"),
        (("cluster=static",), "cluster.addresses is empty"),
        (("cluster.snapshot=/nowhere.json",), "cluster.snapshot=/nowhere.json cannot be read"),
        (("run_dir=/nowhere",), "run_dir=/nowhere is not the folder of a run"),
        (("model.architecture.num_hidden_layers=0",), "random/0 has 0 layers"),
        (("quantization=int4", "quantization.method=best"), "quantization.method: "),
    ],
)
def test_a_wrong_configuration(arguments: tuple[str, ...], said: str, tmp_path: Path, store: Path) -> None:
    assert said in error_of(hyperlane(*TINY, *arguments, cwd=tmp_path, store=store))


def test_missing_weights(tmp_path: Path, store: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 64}))
    error = error_of(hyperlane(*TINY, f"model.source={folder}", cwd=tmp_path, store=store))
    assert f"{folder} has no weights" in error


def test_a_hub_model_without_network(tmp_path: Path, store: Path) -> None:
    error = error_of(hyperlane(*TINY, "model.source=nobody/nothing", "stages=[export]", cwd=tmp_path, store=store))
    assert "cannot fetch nobody/nothing" in error
    assert "model.source=FOLDER" in error


def test_no_worker_found(tmp_path: Path, store: Path) -> None:
    lab = ("cluster=lab", "cluster.name=nobody", "cluster.browse_timeout_s=1", "cluster.interface=127.0.0.1")
    error = error_of(hyperlane(*TINY, *lab, cwd=tmp_path, store=store))
    # Another test's workers may be seen, and are then rejected by name.
    assert re.search("no (usable )?worker of cluster 'nobody' (announced itself|answered) in 1 s", error), error


def test_nothing_at_an_address(tmp_path: Path, store: Path) -> None:
    arguments = ("cluster=static", "cluster.addresses=[127.0.0.1:1]", "cluster.probe_timeout_s=1")
    assert "127.0.0.1:1" in error_of(hyperlane(*TINY, *arguments, cwd=tmp_path, store=store))


def test_a_model_that_does_not_fit(tmp_path: Path, store: Path) -> None:
    large = ("generate.context=512", "generate.slots=65535", "partition.reserve=0.99")
    error = error_of(hyperlane(*TINY, *large, cwd=tmp_path, store=store))
    assert "does not fit" in error
    assert "local-0 needs" in error


def test_a_prompt_longer_than_the_context(tmp_path: Path, store: Path) -> None:
    error = error_of(hyperlane(*TINY, f"prompt={'long ' * 60}", cwd=tmp_path, store=store))
    assert "the context holds 128" in error


def test_two_addresses_of_one_name(tmp_path: Path, store: Path) -> None:
    with (
        running_worker("twin", tmp_path / "a", cluster="a") as a,
        running_worker("twin", tmp_path / "b", cluster="b") as b,
    ):
        error = error_of(hyperlane(*TINY, *static(a, b), cwd=tmp_path, store=store))
    assert "both called twin" in error


def test_a_worker_of_another_version(tmp_path: Path, store: Path) -> None:
    with running_worker("old", tmp_path / "old", protocol_version=99) as old:
        error = error_of(hyperlane(*TINY, *static(old), cwd=tmp_path, store=store))
    assert "version 99" in error


def test_an_altered_or_truncated_layer_file_is_fetched_again(tmp_path: Path, store: Path) -> None:
    kept = tmp_path / "worker"
    arguments = (*TINY, "prompt=Hello")
    with running_worker("w0", kept) as worker:
        first = hyperlane(*arguments, *static(worker), cwd=tmp_path, store=store)
    assert first.code == 0, first.err
    assert sent(first)[0] == 7  # the shard's graph, the embedding, four layers, the head
    weights = [part["weights"]["sha256"] for part in first.artifact("export", "manifest.json")["parts"]]
    altered, truncated = (kept / "blobs" / weights[index] for index in (1, 2))
    altered.chmod(0o644)
    truncated.chmod(0o644)
    altered.write_bytes(b"x" + altered.read_bytes()[1:])
    truncated.write_bytes(truncated.read_bytes()[:-1])
    with running_worker("w0", kept) as worker:
        again = hyperlane(*arguments, *static(worker), cwd=tmp_path, store=store)
    assert again.code == 0, again.err
    assert sent(again)[0] == 2
    assert again.generation["requests"][0]["token_ids"] == first.generation["requests"][0]["token_ids"]


def test_a_prompt_on_running_workers_sends_nothing(tmp_path: Path, store: Path) -> None:
    with running_worker("w0", tmp_path / "0") as a, running_worker("w1", tmp_path / "1") as b:
        first = hyperlane(*TINY, "prompt=Hello", *static(a, b), cwd=tmp_path, store=store)
        again = hyperlane(*TINY, "prompt=Hello", *static(a, b), cwd=tmp_path, store=store)
        moved = hyperlane(
            *TINY,
            "prompt=Hello",
            *static(a, b),
            "partition=manual",
            "partition.layers=[3,1]",
            cwd=tmp_path,
            store=store,
        )
    assert [done.code for done in (first, again, moved)] == [0, 0, 0], (first.err, again.err, moved.err)
    assert [shard["loaded"] for shard in again.artifact("deploy", "deployment.json")["shards"]] == [
        False,
        False,
    ]
    assert sent(again) == [0, 0]
    assert sent(moved) == [2, 1], "w0 lacks its new graph and one layer, w1 its new graph alone"


def test_a_folder_that_cannot_be_written(tmp_path: Path, store: Path) -> None:
    (tmp_path / "outputs").write_text("a file is in the way")
    assert "cannot write the run's folder" in error_of(hyperlane(*TINY, cwd=tmp_path, store=store))


def test_workers_that_hold_another_model_by_now(tmp_path: Path, store: Path) -> None:
    with running_worker("w0", tmp_path / "0") as worker:
        first = hyperlane(*TINY, "prompt=Hello", *static(worker), cwd=tmp_path, store=store)
        other = hyperlane(*TINY, "model.seed=1", "prompt=Hello", *static(worker), cwd=tmp_path, store=store)
        resumed = ("stages=[generate]", "generate.max_new_tokens=5")
        again = hyperlane(f"run_dir={first.folder}", *resumed, cwd=tmp_path, store=store)
    assert other.code == 0, other.err
    assert again.code == 1
    assert "w0 holds another shard by now" in again.err
    assert len(first.generation["requests"][0]["token_ids"]) == 4, "the earlier result is lost"


def test_two_runs_at_once_do_not_mix(tmp_path: Path, store: Path) -> None:
    arguments = (
        *TINY,
        "prompt=Hello",
        "transport/codec=raw",
        "generate.max_new_tokens=100",
        "generate.ignore_eos=true",
    )
    with running_worker("w0", tmp_path / "0") as worker:
        alone = hyperlane(*arguments, *static(worker), cwd=tmp_path, store=store)
        with ThreadPoolExecutor() as pool:
            both = list(pool.map(lambda _: hyperlane(*arguments, *static(worker), cwd=tmp_path, store=store), range(2)))
    done = [run for run in both if run.code == 0]
    assert done, [run.err for run in both]
    assert len({run.folder for run in (alone, *done)}) == 1 + len(done)
    for run in done:
        assert run.generation["requests"][0]["token_ids"] == alone.generation["requests"][0]["token_ids"]
    for run in both:
        assert run.code == 0 or "another run" in run.err, run.err


def test_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small") as disk:
        error = error_of(hyperlane(*TINY, "stages=[export]", cwd=tmp_path, store=disk))
        assert "full" in error
        blobs = list((disk / "blobs").iterdir())
        assert [path.name for path in blobs] == [file_digest(path) for path in blobs], "a half-written file is left"


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for option in ("--control-port", "--data-port"):
            command = [sys.executable, "-m", "hyperlane.worker", "--store", str(tmp_path), option, port]
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment(tmp_path))
            assert done.returncode == 2
            assert port in done.stderr.splitlines()[-1]
            assert "Traceback" not in done.stderr


def test_garbage_on_the_data_port_is_turned_away(tmp_path: Path, store: Path) -> None:
    with running_worker("w0", tmp_path / "0") as worker:
        with socket.create_connection(worker.data, timeout=10) as garbage:
            garbage.recv(4096)  # the greeting
            garbage.sendall(b"GET / HTTP/1.1\r\nHost: worker\r\n\r\n" + bytes(100))
            while garbage.recv(4096):  # until the worker hangs up
                pass
        done = hyperlane(*TINY, "prompt=Hello", *static(worker), cwd=tmp_path, store=store)
        assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("program", "missing", "said"),
    [
        ("hyperlane.__main__", "onnx", "onnx is not installed; pip install 'hyperlane[export]'"),
        ("hyperlane.__main__", "torch", "torch is not installed; pip install 'hyperlane[export]'"),
        (
            "hyperlane.worker",
            "onnxruntime",
            "onnxruntime is missing; pip install 'hyperlane[cpu]', or 'hyperlane[gpu]'",
        ),
    ],
)
def test_an_extra_that_is_not_installed(program: str, missing: str, said: str, tmp_path: Path) -> None:
    code = (
        f"import runpy, sys; sys.modules[{missing!r}] = None; sys.argv = ['x'];"
        f"runpy.run_module({program!r}, run_name='__main__', alter_sys=True)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=60, env=environment(tmp_path / "store")
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def sent(done: Done) -> list[int]:
    return [shard["sent_files"] for shard in done.artifact("deploy", "deployment.json")["shards"]]


def static(*workers: Worker) -> tuple[str, str]:
    return "cluster=static", f"cluster.addresses=[{','.join(worker.control for worker in workers)}]"


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """A file system of 256 KiB; needs root, as CI has."""
    path.mkdir()
    mounted = (
        os.geteuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", path]).returncode == 0
    )
    if not mounted:
        if os.environ.get("CI"):
            pytest.fail("CI must run as root: this test mounts a small disk")
        pytest.skip("needs root to mount a small disk")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)
