"""What the benches' rows say: which side a ratio is on, and what is said of a peer that is missing."""

import socket
import threading
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import pytest

from tests.bench import engine
from tests.bench.__main__ import _table
from tests.bench.engines import llama_rpc
from tests.bench.engines.engine import MissingError
from tests.bench.engines.prompts import WORDS, long_prompt, short_prompts
from tests.bench.engines.wire import counting_proxy
from tests.bench.planning.ask import Answer
from tests.bench.planning.validate import GROUPS, Case, merged, read, write
from tests.bench.row import against


def test_ratio_is_above_one_where_ours_is_better() -> None:
    faster = against("decode 1 stream", 90.0, "tok/s", "llama.cpp RPC", 60.0, more_is_better=True)
    smaller = against("bytes a token", 500.0, "B", "llama.cpp RPC", 200_000.0, more_is_better=False)
    assert (faster.reference, faster.reference_value, faster.ratio) == ("llama.cpp RPC", 60.0, 1.5)
    assert smaller.ratio == 400.0


def test_missing_peer_has_no_ratio_and_is_named() -> None:
    row = against("prefill 512", 900.0, "tok/s", "llama.cpp RPC", None, more_is_better=True)
    assert row.ratio is None
    assert "llama.cpp RPC: missing" in _table([row])


def test_peer_that_is_not_built_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(llama_rpc, "BIN", tmp_path)
    with pytest.raises(MissingError, match="run: make bench-peers"), llama_rpc.LlamaRpc.open():
        pass


def test_rows_have_the_names_that_are_compared_across_releases() -> None:
    assert {"decode 1 stream", "decode 8 streams", "decode 16 streams", "prefill 512"} <= set(engine.TIMED)
    assert llama_rpc.NAME == "llama.cpp RPC"


def test_prompts_differ_and_have_as_many_words_as_asked_for() -> None:
    prompts = [*short_prompts(16, 0), *short_prompts(16, 1)]
    assert len(set(prompts)) == 32
    assert len(long_prompt(512, 3).split()) == 512
    assert set(long_prompt(512, 3).split()) <= set(WORDS.split())


def test_proxy_counts_what_crosses_in_both_directions() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        host, port = server.getsockname()
        answering = threading.Thread(target=_answer, args=(server,))
        answering.start()
        with counting_proxy(f"{host}:{port}") as proxy:
            with closing(socket.create_connection(_address(proxy.address), timeout=10)) as near:
                near.sendall(b"x" * 1000)
                received = 0
                while received < 3000:
                    received += len(near.recv(4096))
            answering.join(10)
            assert proxy.bytes == 4000
            proxy.join(10)


def _answer(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        received = 0
        while received < 1000:
            received += len(connection.recv(4096))
        connection.sendall(b"y" * 3000)
        connection.recv(1)  # until the other end closes


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def case(group: int, mbit_s: float, step_s: float, others: float) -> Case:
    figures = {one.name: 1.0 for one in fields(Answer)}
    return Case(GROUPS[group], mbit_s, Answer(**{**figures, "layers": "", "stages": [], "step_s": step_s}), others)


def test_of_each_configuration_the_quieter_case_counts(tmp_path: Path) -> None:
    file = tmp_path / "cases.jsonl"
    assert read(file) == []
    write(file, [case(0, 20.0, 2.0, 0.9), case(0, 100.0, 3.0, 0.1)])
    found = merged(read(file), [case(1, 20.0, 5.0, 0.0), case(0, 20.0, 1.0, 0.2), case(0, 100.0, 9.0, 0.8)])
    assert [(one.group.name, one.mbit_s, one.answer.step_s) for one in found] == [
        ("a", 100.0, 3.0),
        ("a", 20.0, 1.0),
        ("b", 20.0, 5.0),
    ]
