from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from llm_proxy.server.pidfile import running_pid
from llm_proxy.server.state import ServerState, WorkerState
from llm_proxy.server.stop_request import take_stop_request
from llm_proxy.server.termination import stop_server

# Dies of the SIGTERM with the number in argv[2]; 0: of none.
SERVER = """
import os, signal, sys, time
from pathlib import Path
from llm_proxy.server.pidfile import PidFile

count = 0
def on_term(number, frame):
    global count
    count += 1
    if count == int(sys.argv[2]):
        os._exit(0)

signal.signal(signal.SIGTERM, on_term)
PidFile(Path(sys.argv[1])).claim()
print("claimed", flush=True)
while True:
    time.sleep(60)
"""
Begin = Callable[[int], subprocess.Popen[bytes]]


@pytest.fixture
def pid_file(tmp_path: Path) -> Path:
    return tmp_path / "server.pid"


@pytest.fixture
def begin(pid_file: Path) -> Iterator[Begin]:
    started: list[subprocess.Popen[bytes]] = []

    def begin(deadly: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", SERVER, str(pid_file), str(deadly)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE)
        started.append(server)
        assert server.stdout is not None
        assert server.stdout.readline() == b"claimed\n"
        return server

    yield begin
    for server in started:
        server.kill()
        server.communicate()


def state_of(server: subprocess.Popen[bytes], *workers: int) -> ServerState:
    return ServerState(
        pid=server.pid,
        address="127.0.0.1:1",
        manage_address=None,
        version="0.1.0",
        started_at=0.0,
        runtime_folder=None,
        workers=[WorkerState(pid=pid, started_at=0.0) for pid in workers],
        flags={},
    )


def test_server_that_drains_is_waited_for(begin: Begin, pid_file: Path) -> None:
    server = begin(1)
    assert stop_server(pid_file, state_of(server), timeout_s=5) == "drained"
    assert server.wait(30) == 0


def test_server_that_takes_too_long_is_told_to_end_at_once(begin: Begin, pid_file: Path) -> None:
    server = begin(2)
    assert stop_server(pid_file, state_of(server), timeout_s=0.1) == "killed"
    assert server.wait(30) == 0


def test_server_that_hangs_is_killed_with_its_workers(begin: Begin, pid_file: Path) -> None:
    server = begin(0)
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    began = time.monotonic()
    state = state_of(server, worker.pid)
    assert stop_server(pid_file, state, timeout_s=0.1, insist_s=0.1) == "killed"
    assert time.monotonic() - began < 30
    assert server.wait(30) == -signal.SIGKILL
    assert worker.wait(30) == -signal.SIGKILL
    assert running_pid(pid_file) is None


def test_worker_pids_of_another_server_are_left_alone(begin: Begin, pid_file: Path) -> None:
    server = begin(0)
    other = state_of(server, os.getpid())
    stale = ServerState(
        **{name: getattr(other, name) for name in other.__struct_fields__} | {"pid": 1}
    )
    assert stop_server(pid_file, stale, timeout_s=0.05, insist_s=0.05) == "killed"
    assert server.wait(30) == -signal.SIGKILL


def test_nothing_running_is_fine(pid_file: Path) -> None:
    assert stop_server(pid_file, None, timeout_s=0) == "drained"


def test_server_that_was_told_of_the_timeout_ends_its_drain_by_itself(
    begin: Begin, pid_file: Path, tmp_path: Path
) -> None:
    server = begin(1)
    state = msgspec.structs.replace(state_of(server), runtime_folder=str(tmp_path))
    assert stop_server(pid_file, state, timeout_s=0.0) == "cut"
    assert take_stop_request(tmp_path) == 0.0
    assert server.wait(30) == 0
