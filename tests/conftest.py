"""Shared by all tests: a clean environment and the event loop that the server runs on."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from llm_proxy.database_url import DatabaseUrl
from llm_proxy.settings import SETTINGS
from tests.postgres_server import PostgresServer
from tests.redis_server import RedisServer, StartRedis

_OTHERS = {
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_BASE_URL",
    "FORCE_COLOR",
    "NO_COLOR",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "XDG_DATA_HOME",
    *("PROXY_URL", "PROXY_TOKEN", "MODEL", "SYSTEM_PROMPT", "TEMPERATURE", "MAX_TOKENS"),
    *("USE_STREAMING", "VERBOSE"),
    *(f"{scheme}_PROXY" for scheme in ("ALL", "HTTP", "HTTPS", "NO")),
}
_NAMES = {setting.env for setting in SETTINGS} | _OTHERS


# How fast the machine is just now says nothing of what is tested.
settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any-machine")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of whoever runs the tests reaches them, and nothing they do reaches that home."""
    for name in list(os.environ):
        if name.upper() in _NAMES or name.startswith("LLM_PROXY_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))


@pytest.fixture
def deaf_address() -> Iterator[str]:
    """A port where nobody listens, and that nobody else is given."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Of all tests: one that stops or pauses it takes `own_postgres_server`."""
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture
def own_postgres_server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[DatabaseUrl]:
    """A blank database."""
    url = postgres_server.new_database()
    yield url
    postgres_server.drop(url)


@pytest.fixture
def other_postgres_url(postgres_server: PostgresServer) -> Iterator[DatabaseUrl]:
    """A second one."""
    url = postgres_server.new_database()
    yield url
    postgres_server.drop(url)


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[StartRedis]:
    """Starts servers with options of their command line."""
    servers: list[RedisServer] = []

    def start(*options: str) -> RedisServer:
        servers.append(RedisServer(tmp_path, *options))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def redis_server(start_redis: StartRedis) -> RedisServer:
    """An empty one, of this test alone."""
    return start_redis()


_LAUNCH = (
    "import fcntl, os, sys, termios\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"  # a password is asked on the controlling terminal
    "os.execv(sys.executable, [sys.executable, '-m', 'llm_proxy', *sys.argv[1:]])\n"
)


def _echoes(terminal: int) -> bool:
    return bool(termios.tcgetattr(terminal)[3] & termios.ECHO)


def _answer(terminal: int, question: str, answer: str) -> str:
    """A question that ends in `?hidden` is answered once the terminal stopped echoing."""
    wanted, is_hidden = question.removesuffix("?hidden"), question.endswith("?hidden")
    shown = ""
    while wanted not in shown:
        shown += os.read(terminal, 4096).decode()
    while is_hidden and _echoes(terminal):  # nothing tells of it but asking
        time.sleep(0.005)
    os.write(terminal, answer.encode())
    return shown


def _read_all(terminal: int) -> str:
    shown = b""
    with contextlib.suppress(OSError):  # how Linux tells the end
        while piece := os.read(terminal, 4096):
            shown += piece
    return shown.decode()


@pytest.fixture
def in_terminal() -> Callable[[list[str], list[tuple[str, str]]], tuple[int, str]]:
    """Runs a command on a terminal, answering each question; its exit code and what was shown."""

    def run(arguments: list[str], dialogue: list[tuple[str, str]]) -> tuple[int, str]:
        terminal, end = os.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, *arguments],
            stdin=end,
            stdout=end,
            stderr=end,
            start_new_session=True,
        )
        os.close(end)
        limit = threading.Timer(30, process.kill)
        limit.start()
        try:
            shown = "".join(_answer(terminal, *exchange) for exchange in dialogue)
            shown += _read_all(terminal)
            return process.wait(), shown
        finally:
            process.kill()
            process.wait()
            limit.cancel()
            os.close(terminal)

    return run
