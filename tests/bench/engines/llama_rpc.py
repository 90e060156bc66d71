"""llama.cpp: two `ggml-rpc-server -t 1`, and `llama-batched-bench` as client, which neither samples nor writes text."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.engines.engine import CONTEXT, PEERS, SLOTS, STREAM_PROMPT_TOKENS, MissingError, gguf, peak_bytes

BIN = PEERS / "llama.cpp" / "bin"
NAME = "llama.cpp RPC"


class LlamaRpc:
    """Servers that live as long as the bench; each measurement is a client of its own that loads the model first."""

    name = NAME

    def __init__(self, servers: "Sequence[subprocess.Popen[bytes]]", addresses: Sequence[str]) -> None:
        self._servers = servers
        self._addresses = addresses

    @classmethod
    @contextmanager
    def open(cls) -> "Iterator[LlamaRpc]":
        with ExitStack() as exits:
            started = [exits.enter_context(rpc_server()) for _ in range(2)]
            yield cls([server for server, _ in started], [address for _, address in started])

    def decode_per_s(self, streams: int, new_tokens: int) -> float:
        return self._bench(STREAM_PROMPT_TOKENS, new_tokens, streams)["speed_tg"]

    def decode_after_s(self, prompt_tokens: int, new_tokens: int) -> float:
        """Tokens a second of one stream behind a prompt of this length."""
        return self._bench(prompt_tokens, new_tokens, 1)["speed_tg"]

    def first_token_s(self, prompt_tokens: int) -> float:
        return self._bench(prompt_tokens, 1, 1)["t_pp"]

    def peak_bytes(self) -> list[int]:
        return [peak_bytes(server.pid) for server in self._servers]

    def _bench(self, prompt_tokens: int, new_tokens: int, streams: int) -> dict[str, float]:
        return batched_bench(self._addresses, prompt_tokens, new_tokens, streams)


@contextmanager
def rpc_server(host: str = "127.0.0.1", inside: Sequence[str] = ()) -> "Iterator[tuple[subprocess.Popen[bytes], str]]":
    """A running server and its address; `inside` is a command that runs it elsewhere (`ip netns exec NAME`)."""
    address = f"{host}:{_free_port()}"
    command = [*inside, str(program("ggml-rpc-server")), "-t", "1", "-H", host, "-p", address.rpartition(":")[2]]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait_listening(server, address, inside)
            yield server, address
        finally:
            server.kill()


def batched_bench(
    addresses: Sequence[str], prompt_tokens: int, new_tokens: int, streams: int, timeout_s: float = 300.0
) -> dict[str, float]:
    """The client's figures: `t_pp` and `t_tg` in seconds, `speed_pp` and `speed_tg` in tokens a second."""
    command = client(addresses, prompt_tokens, new_tokens, str(streams))
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or len(lines) != 1:
        raise RuntimeError(f"llama-batched-bench failed with {done.returncode}: {done.stderr[-800:]}")
    figures: dict[str, float] = json.loads(lines[0])
    return figures


def client(addresses: Sequence[str], prompt_tokens: int, new_tokens: int, streams: str) -> list[str]:
    """The command of a client that prints a line of JSON for each number of `streams`, such as "1,8"."""
    options = {
        "-m": str(gguf()),
        "--rpc": ",".join(addresses),
        "-ngl": "99",
        "-ts": "/".join("1" for _ in addresses),
        "-t": "1",
        "-c": str(CONTEXT * SLOTS),
        "-npp": str(prompt_tokens),
        "-ntg": str(new_tokens),
        "-npl": streams,
        "--output-format": "jsonl",
    }
    return [str(program("llama-batched-bench")), *(word for pair in options.items() for word in pair)]


def start_up_s() -> float:
    """From the start of both servers to a client that loaded the model and has its first token."""
    begun_s = time.perf_counter()
    with LlamaRpc.open() as engine:
        engine.first_token_s(1)
        return time.perf_counter() - begun_s


def program(name: str) -> Path:
    """A program of llama.cpp; MissingError where it was not built."""
    path = BIN / name
    if not path.is_file():
        raise MissingError(f"llama.cpp is missing ({path}); run: make bench-peers")
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_listening(server: "subprocess.Popen[bytes]", address: str, inside: Sequence[str]) -> None:
    """Until the kernel lists the port: a connection of ours would be served, and the server serves one at a time."""
    port, deadline_s = f"{int(address.rpartition(':')[2]):04X}", time.monotonic() + 20
    while time.monotonic() < deadline_s:
        if server.poll() is not None:
            raise RuntimeError(f"ggml-rpc-server ended with {server.returncode}")
        listed = subprocess.run([*inside, "cat", "/proc/net/tcp"], capture_output=True, text=True, check=True).stdout
        if any(f":{port} 00000000:0000 0A" in line for line in listed.splitlines()):
            return
        time.sleep(0.02)
    raise RuntimeError(f"ggml-rpc-server does not listen at {address}")
