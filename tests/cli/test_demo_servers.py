from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from llm_proxy.cli.demo_servers import DemoServers, demo_servers
from llm_proxy.errors import LLMProxyError
from llm_proxy.home import Home
from llm_proxy.server.pidfile import running_pid
from llm_proxy.server.state import read_state


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="llmp-") as name:  # short: it holds sockets
        (Path(name) / "run").mkdir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(Path(name) / "run"))
        yield Path(name)


def is_answering(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code < 500
    except httpx.ConnectError:
        return False


def assert_nothing_runs(home: Path, servers: DemoServers) -> None:
    assert not is_answering(servers.mock_url)
    assert not is_answering(servers.proxy_url)
    assert running_pid(Home(home).pid_file) is None
    assert list((home / "run").iterdir()) == []


def test_both_run_within_the_block_and_not_after_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is set where the demo is shown is not for it.
    monkeypatch.setenv("LISTEN_ADDR", "256.0.0.1:1")
    monkeypatch.setenv("LOG_LEVEL", "loud")
    with demo_servers(home, tokens_per_second=5) as servers:
        assert servers.home == home
        assert is_answering(f"{servers.proxy_url}/ready")
        models = httpx.get(
            f"{servers.mock_url}/v1/models", headers={"Authorization": "Bearer k"}, trust_env=False
        )
        assert models.json()["object"] == "list"
        state = read_state(Home(home).state_file)
        assert state is not None
        assert os.getsid(state.pid) != os.getsid(0)  # Ctrl-C reaches the demo alone
        assert servers.event_log.exists()
    assert_nothing_runs(home, servers)


def test_failure_within_the_block_ends_both(home: Path) -> None:
    with pytest.raises(ZeroDivisionError), demo_servers(home, tokens_per_second=0) as servers:
        raise ZeroDivisionError
    assert_nothing_runs(home, servers)


def test_server_that_died_meanwhile_is_no_trouble(home: Path) -> None:
    with demo_servers(home, tokens_per_second=0) as servers:
        pid = running_pid(Home(home).pid_file)
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
    assert_nothing_runs(home, servers)


def test_server_that_cannot_start_gives_its_reason(home: Path) -> None:
    (home / "demo.db").write_text("this is no database" * 100)
    with (
        pytest.raises(LLMProxyError, match="the server did not start: .*isn't a SQLite database"),
        demo_servers(home, tokens_per_second=0),
    ):
        pass
    providers = (home / "providers.yaml").read_text()
    address = providers.partition("base_url: http://")[2].split("\n")[0]
    with pytest.raises(ConnectionRefusedError), socket.socket() as client:
        host, port = address.split(":")
        client.connect((host, int(port)))  # the mock, which did start
    assert list((home / "run").iterdir()) == []


def test_mock_that_cannot_start_gives_its_reason(home: Path) -> None:
    with (
        pytest.raises(LLMProxyError, match=r"(?s)the mock did not start: .*--tokens-per-second"),
        demo_servers(home, tokens_per_second=-1),
    ):
        pass
    assert sorted(path.name for path in home.iterdir()) == ["mock.log", "run"]
