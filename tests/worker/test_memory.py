"""A worker that runs out of memory says how much it needed and what to lower, and goes on."""

import subprocess
import sys

import numpy as np
import pytest

from hyperlane.errors import OutOfMemoryError
from hyperlane.model.assemble import assemble
from hyperlane.transport.frame import Run
from hyperlane.worker.memory import is_out_of_memory, step_out_of_memory
from hyperlane.worker.session import Session
from tests.fixtures_model import Exported

# In a process of its own, as its address space is limited: first beyond the cache, then beyond a step.
LIMITED = """
import resource, sys, numpy as np
from pathlib import Path
from hyperlane.errors import OutOfMemoryError, one_line
from hyperlane.transport.frame import Run
from hyperlane.worker.session import Session

def limit(room_bytes):
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room_bytes, hard))

def tried(action):
    try:
        action()
        print("ok")
    except OutOfMemoryError as error:
        print(one_line(error))

def step(session, count):
    session.run([Run(0, 1, 0, count)], np.zeros(count, np.int64))

graph = Path(sys.argv[1])
session = Session(graph, slots=1, context=1500, threads=1)
tried(lambda: step(session, 4))
limit(64 << 20)
tried(lambda: Session(graph, slots=1000, context=1500, threads=1))
limit(1 << 18)
tried(lambda: step(session, 1500))
limit(512 << 20)
tried(lambda: step(session, 1500))
"""


def test_a_process_without_memory_goes_on(tiny: Exported) -> None:
    graph = tiny.store.path(tiny.store.put(assemble(tiny.manifest, tiny.store, 0, 4)).sha256)
    command = [sys.executable, "-c", LIMITED, str(graph)]
    first, cache, long_step, last = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=100
    ).stdout.splitlines()
    assert (first, last) == ("ok", "ok")
    assert cache.startswith("keys and values of 1000 slots of 1500 tokens need 1.4 GiB; lower generate.slots or")
    assert long_step.startswith("a step of 1500 rows ran out of memory")
    assert long_step.endswith("; lower generate.prefill_chunk, generate.slots or generate.context")


def test_a_cache_that_would_not_fit_is_refused_before_it_is_written(tiny: Exported) -> None:
    graph = tiny.store.path(tiny.store.put(assemble(tiny.manifest, tiny.store, 0, 4)).sha256)
    with pytest.raises(OutOfMemoryError, match=r"2 slots of 1023 tokens need 2\.0 MiB, 1\.0 MiB are free"):
        Session(graph, slots=2, context=1023, threads=1, free_bytes=1 << 20)
    session = Session(graph, slots=2, context=1023, threads=1, free_bytes=2 << 20)
    session.run([Run(0, 1, 0, 1)], np.zeros(1, np.int64))


def test_how_libraries_say_it() -> None:
    said = RuntimeError("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 3145728")
    assert is_out_of_memory(said)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("Non-zero status code returned while running Gather"))
    error = step_out_of_memory(256, said)
    assert error.exit_code == 2
    assert "a step of 256 rows ran out of memory, a buffer of 3.0 MiB could not be had; lower" in str(error)
