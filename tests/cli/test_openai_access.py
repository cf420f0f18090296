from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import typer

from llm_proxy.cli.openai_access import find_target
from llm_proxy.errors import WrongUsage
from llm_proxy.secrets import Secret
from llm_proxy.server.pidfile import PidFile
from llm_proxy.server.state import ServerState, write_state

TOKEN = "sk-token-of-tests-0123"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("LLM_PROXY_HOME", str(home))
    return home


def _state(home: Path, *, pid: int, proxy_protocol: bool = False) -> None:
    state = ServerState(
        pid=pid,
        address="0.0.0.0:4321",
        manage_address=None,
        proxy_protocol=proxy_protocol,
        version="1",
        started_at=0,
        runtime_folder=None,
        workers=[],
        flags={},
    )
    write_state(home / "server.json", state)


def test_options_say_where_and_with_what(home: Path) -> None:
    target = find_target("anthropic", "http://proxy:1", TOKEN)
    assert (target.base_url, target.token, target.api) == (
        "http://proxy:1",
        Secret(TOKEN),
        "anthropic",
    )


def test_without_a_server_the_usual_address_is_taken(home: Path) -> None:
    _state(home, pid=1)  # left behind: nobody holds the PID file
    assert find_target("openai", None, TOKEN).base_url == "http://localhost:8080"


@pytest.fixture
def running_pid(home: Path) -> int:
    """This process passes for a server: it holds the PID file for as long as it lives."""
    pid_file = PidFile(home / "server.pid")
    pid_file.claim()
    import os

    return os.getpid()


def test_running_server_of_the_home_is_found(home: Path, running_pid: int) -> None:
    _state(home, pid=running_pid)
    target = find_target("openai", None, TOKEN)
    assert target.base_url == "http://127.0.0.1:4321"
    assert target.tls is None


def test_server_behind_a_proxy_is_named_by_its_proxy(home: Path, running_pid: int) -> None:
    _state(home, pid=running_pid, proxy_protocol=True)
    with pytest.raises(WrongUsage, match="expects the PROXY protocol"):
        find_target("openai", None, TOKEN)


@pytest.mark.parametrize("token", [None, ""])
def test_missing_token_says_how_to_make_one(home: Path, token: str | None) -> None:
    with pytest.raises(WrongUsage, match="llm-proxy manage token generate"):
        find_target("openai", None, token)


@pytest.mark.parametrize("token", ["sk-ü", "two words", "line\nbreak"])
def test_token_that_no_header_carries_is_refused_unseen(home: Path, token: str) -> None:
    with pytest.raises(typer.BadParameter) as caught:
        find_target("openai", None, token)
    assert token not in str(caught.value)


def _stdin(monkeypatch: pytest.MonkeyPatch, raw: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))


def test_token_from_stdin_is_its_first_line_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stdin(monkeypatch, b"sk-first\nand the question")
    assert find_target("openai", None, "-").token == Secret("sk-first")
    assert sys.stdin.buffer.read() == b"and the question"


def test_stdin_without_a_token_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _stdin(monkeypatch, b"\n")
    with pytest.raises(typer.BadParameter, match="nothing came from stdin"):
        find_target("openai", None, "-")
