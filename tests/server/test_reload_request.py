from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llm_proxy.errors import LLMProxyError
from llm_proxy.server.reload_request import request_reload
from llm_proxy.server.state import ServerState, write_state

# Answers SIGHUP as argv[2] says; what it does then is one reload after those that argv[3] counts.
SERVER = """
import os, signal, sys, time
from pathlib import Path
import msgspec
from llm_proxy.server.pidfile import PidFile
from llm_proxy.server.state import ReloadResult, read_state, write_state

folder, behaviour = Path(sys.argv[1]), sys.argv[2]

def end(number, error):
    state = read_state(folder / "server.json")
    result = ReloadResult(number=number, at=0.0, error=error)
    write_state(
        folder / "server.json", msgspec.structs.replace(state, reloads=number, last_reload=result)
    )

def on_hup(number, frame):
    if behaviour == "die":
        os._exit(1)
    if behaviour == "busy":
        end(3, "that was the one before")
        time.sleep(0.2)
        end(4, None)
    if behaviour == "stop":
        state = read_state(folder / "server.json")
        write_state(folder / "server.json", msgspec.structs.replace(state, is_stopping=True))
    if behaviour == "good":
        end(1, None)
    if behaviour == "refuse":
        end(1, "the moon is in the wrong house")

signal.signal(signal.SIGHUP, on_hup)
PidFile(folder / "server.pid").claim()
print("claimed", flush=True)
while True:
    time.sleep(60)
"""
Ask = Callable[..., ServerState]


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Ask]:
    started: list[subprocess.Popen[bytes]] = []

    def ask(behaviour: str, *, reloads: int = 0, timeout_s: float = 20.0) -> ServerState:
        command = [sys.executable, "-c", SERVER, str(tmp_path), behaviour]
        server = subprocess.Popen(command, stdout=subprocess.PIPE)
        started.append(server)
        assert server.stdout is not None
        assert server.stdout.readline() == b"claimed\n"
        state = ServerState(
            pid=server.pid,
            address="127.0.0.1:1",
            manage_address=None,
            version="0.1.0",
            started_at=0.0,
            runtime_folder=None,
            workers=[],
            reloads=reloads,
            flags={},
        )
        write_state(tmp_path / "server.json", state)
        return request_reload(
            server.pid,
            pid_file=tmp_path / "server.pid",
            state_file=tmp_path / "server.json",
            timeout_s=timeout_s,
        )

    yield ask
    for server in started:
        server.kill()
        server.communicate()


def test_reload_is_waited_for(ask: Ask) -> None:
    state = ask("good")
    assert state.last_reload is not None
    assert state.last_reload.error is None


def test_refusal_is_told(ask: Ask) -> None:
    with pytest.raises(LLMProxyError) as caught:
        ask("refuse")
    assert str(caught.value) == (
        "the old configuration stays in force: the moon is in the wrong house"
    )


def test_end_of_a_reload_that_had_begun_before_is_not_the_answer(ask: Ask) -> None:
    state = ask("busy", reloads=3)
    assert state.last_reload is not None
    assert state.last_reload.number == 4


def test_server_that_dies_is_told(ask: Ask) -> None:
    with pytest.raises(LLMProxyError, match="ended during the reload"):
        ask("die")


def test_server_that_is_stopping_is_told(ask: Ask) -> None:
    with pytest.raises(LLMProxyError, match="is stopping; nothing was reloaded"):
        ask("stop")


def test_server_that_says_nothing_is_given_up(ask: Ask) -> None:
    with pytest.raises(LLMProxyError, match=r"has not said within 0\.2 s that it reloaded"):
        ask("silent", timeout_s=0.2)


def test_state_of_another_server_is_no_answer(tmp_path: Path) -> None:
    with pytest.raises(LLMProxyError, match="left no state .* restart"):
        request_reload(1, pid_file=tmp_path / "pid", state_file=tmp_path / "state")
