"""The commands as real processes, with a real server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.server.pidfile import running_pid
from llm_proxy.server.state import read_state

TIMEOUT_S = 60


class Home:
    """A home folder, and the commands that are run with it."""

    def __init__(self, path: Path, runtime: Path) -> None:
        self.path = path
        self.runtime = runtime
        self.environ = os.environ | {
            "LLM_PROXY_HOME": str(path),
            "XDG_RUNTIME_DIR": str(runtime),
            "NO_COLOR": "1",
        }

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "llm_proxy", "server", *arguments],
            env=self.environ,
            cwd=self.runtime,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        with self.begin(*arguments) as process:
            output, errors = process.communicate(timeout=TIMEOUT_S)
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

    def start(self, *arguments: str) -> dict[str, Any]:
        """Starts a daemon; its status."""
        done = self.run("start", "-d", "--addr", "127.0.0.1:0", *arguments)
        assert done.returncode == 0, done.stderr
        return self.status()

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return found

    def pid(self) -> int | None:
        return running_pid(self.path / "server.pid")

    def end(self) -> None:
        """Whatever runs here is killed."""
        state = read_state(self.path / "server.json")
        pids = [self.pid(), *(worker.pid for worker in state.workers)] if state else [self.pid()]
        for pid in pids:
            if pid is not None:
                kill(pid)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    # Short, for the path of a Unix socket; relative flags are relative to it.
    with tempfile.TemporaryDirectory(prefix="lp-", dir="/tmp") as folder:
        home = Home(tmp_path / "home", Path(folder))
        yield home
        home.end()


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def get(address: str, path: str) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address}{path}", timeout=5) as answer:
        status: int = answer.status
        return status


def is_listening(address: str) -> bool:
    host, port = address.split(":")
    with socket.socket() as client:
        return client.connect_ex((host, int(port))) == 0


def test_daemon_starts_answers_is_seen_refuses_a_second_and_stops(home: Home) -> None:
    started = home.run("start", "-d", "--addr", "127.0.0.1:0")
    assert started.returncode == 0, started.stderr
    assert started.stdout == ""
    assert "management token" in started.stderr
    assert "manage project create" in started.stderr
    status = home.status()
    fields = {"running", "pid", "stopping", "uptime_seconds"}
    assert set(status) == fields | {"address", "url", "version", "workers"}
    assert status["stopping"] is False
    assert status["url"] == f"http://{status['address']}"
    assert status["running"] is True
    assert status["pid"] == home.pid()
    assert [set(worker) for worker in status["workers"]] == [{"pid", "uptime_seconds"}]
    assert get(status["address"], "/ready") == 200

    shown = home.run("status")
    assert (shown.returncode, str(status["pid"]) in shown.stdout) == (0, True)
    health = home.run("health", "--json")
    assert health.returncode == 0
    assert json.loads(health.stdout)["healthy"] is True

    second = home.run("start", "--addr", "127.0.0.1:0")
    assert second.returncode == 1
    assert f"Error: a server with pid {status['pid']} already runs here" in second.stderr

    stopped = home.run("stop")
    assert stopped.returncode == 0
    assert f"pid {status['pid']} has stopped" in stopped.stderr
    assert not is_listening(status["address"])
    remains = {path.name for path in home.path.iterdir()}
    kept = {"audit.jsonl", "encryption_key", "host_id", "ledgers", "llm-proxy.db"}
    assert remains == kept | {"management_token", "server.log"}
    assert not list((home.path / "ledgers").iterdir())
    assert list(home.runtime.iterdir()) == []


def test_nothing_running_is_told_by_every_command(home: Home) -> None:
    stop, status = home.run("stop"), home.run("status")
    assert (stop.returncode, "No server is running" in stop.stderr) == (0, True)
    assert (status.returncode, status.stdout) == (1, "")
    assert home.status() == {
        "running": False,
        "pid": None,
        "stopping": False,
        "uptime_seconds": None,
        "address": None,
        "url": None,
        "version": None,
        "workers": [],
    }
    health = home.run("health", "--url", "http://127.0.0.1:1")
    assert health.returncode == 5
    assert "no server answers at http://127.0.0.1:1" in health.stderr
    assert home.run("health", "--url", "nonsense").returncode == 2


def test_daemon_obeys_every_flag(home: Home) -> None:
    folder = home.runtime
    providers = folder / "providers.yaml"
    providers.write_text(
        "apis:\n  mine:\n    base_url: https://upstream.invalid\n"
        "    allowed_endpoints: [/*]\n    allowed_methods: [POST]\n"
    )
    env = folder / "my.env"
    env.write_text("DEBUG_HEADERS=true\n")
    # Relative to where the command runs, though the daemon runs elsewhere.
    flags = {
        "--manage-addr": "127.0.0.1:0",
        "--workers": "2",
        "--db": "sqlite:///my.db",
        "--config": "providers.yaml",
        "--env": "my.env",
        "--pid-file": "my.pid",
        "--log-level": "warn",
        "--log-format": "console",
        "--log-file": "my.log",
        "--file-event-log": "my.jsonl",
    }
    status = home.start("--debug", *(word for flag in flags.items() for word in flag))
    assert status["running"] is True
    assert len(status["workers"]) == 2
    assert running_pid(folder / "my.pid") == status["pid"]
    for name in ("my.db", "my.log", "my.jsonl"):
        assert (folder / name).exists()
    assert " INFO " in (folder / "my.log").read_text()  # --debug, in the console format
    assert not (home.path / "server.log").exists()
    state = read_state(home.path / "server.json")
    assert state is not None
    assert state.manage_address is not None
    assert get(state.manage_address, "/ready") == 200

    restarted = home.run("restart", "--workers", "1", "--env", str(env))
    assert restarted.returncode == 0, restarted.stderr
    again = home.status()
    assert again["pid"] not in (None, status["pid"])
    assert len(again["workers"]) == 1
    assert running_pid(folder / "my.pid") == again["pid"]


def test_failed_daemon_gives_the_reason(home: Home, tmp_path: Path) -> None:
    providers = tmp_path / "providers.yaml"
    providers.write_text("default_api: openai\napiz: {}\n")
    done = home.run("start", "-d", "--config", str(providers))
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {providers}:2")
    assert "Traceback" not in done.stderr
    assert home.pid() is None
    assert {path.name for path in home.path.iterdir()} == {"server.log"}


def test_bad_flag_is_told_before_anything_starts(home: Home) -> None:
    done = home.run("start", "--workers", "many")
    assert done.returncode == 2
    done = home.run("start", "--workers", "0")
    assert done.returncode == 2
    assert "--workers must be a whole number from 1 to 256, not '0'" in done.stderr
    assert not home.path.exists()


def test_restart_with_a_bad_configuration_leaves_the_server_running(
    home: Home, tmp_path: Path
) -> None:
    status = home.start()
    done = home.run("restart", "--config", str(tmp_path / "missing.yaml"))
    assert done.returncode == 1
    assert "missing.yaml" in done.stderr
    assert home.pid() == status["pid"]


def test_restart_starts_what_was_not_running(home: Home) -> None:
    done = home.run("restart", "--addr", "127.0.0.1:0")
    assert done.returncode == 0, done.stderr
    assert "No server was running" in done.stderr
    assert home.status()["running"] is True


def test_reload_reads_again_what_the_start_read(home: Home) -> None:
    """From where it was started, though a daemon runs elsewhere."""
    home.environ["API_CONFIG_PATH"] = "providers.yaml"
    path = home.runtime / "providers.yaml"
    text = (
        "apis:\n  mine:\n    base_url: https://upstream.invalid\n"
        "    allowed_endpoints: [/*]\n    allowed_methods: [POST]\n"
    )
    path.write_text(text)
    before = home.start("--workers", "1")
    path.write_text(text + "    retries: 1\n")
    refused = home.run("reload")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"Error: the old configuration stays in force: {path}:6" in refused.stderr
    assert home.status()["workers"][0]["pid"] == before["workers"][0]["pid"]
    path.write_text(text)
    done = home.run("reload")
    assert (done.returncode, done.stdout) == (0, "")
    assert f"pid {before['pid']} has reloaded (workers: 1)." in done.stderr
    after = home.status()
    assert after["pid"] == before["pid"]
    assert after["workers"][0]["pid"] != before["workers"][0]["pid"]
    assert get(after["address"], "/ready") == 200


def test_reload_without_a_server_is_told(home: Home) -> None:
    done = home.run("reload")
    assert done.returncode == 5
    assert "no server is running" in done.stderr
    assert "server start" in done.stderr


def test_killed_worker_is_replaced_and_requests_go_on(home: Home) -> None:
    status = home.start("--workers", "2")
    victim = status["workers"][0]["pid"]
    kill(victim)
    for _ in range(50):
        assert get(status["address"], "/live") == 200

    def is_replaced() -> bool:
        state = read_state(home.path / "server.json")
        assert state is not None
        pids = {worker.pid for worker in state.workers}
        return len(pids) == 2 and victim not in pids

    until(is_replaced)


def test_killed_supervisor_leaves_nothing_and_the_next_start_works_at_once(home: Home) -> None:
    status = home.start("--file-event-log", str(home.path / "events.jsonl"))
    (stale,) = home.runtime.glob("llm-proxy-*")
    kill(status["pid"])
    again = home.run("start", "-d", "--addr", status["address"])
    assert again.returncode == 0, again.stderr
    assert home.pid() not in (None, status["pid"])
    assert not stale.exists()
    pid = home.pid()
    assert pid is not None
    kill(pid)
    until(lambda: not is_listening(status["address"]))


def test_stopping_waits_for_a_running_request_only_so_long(home: Home) -> None:
    status = home.start()
    host, port = status["address"].split(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as client:
        # A request that never ends: its body is announced and not sent.
        token = (home.path / "management_token").read_text().strip()
        head = "POST /manage/projects HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n"
        client.sendall(f"{head}Authorization: Bearer {token}\r\n\r\n{{".encode())
        began = time.monotonic()
        stopped = home.run("stop", "--timeout", "0.5")
        assert time.monotonic() - began < 10
    assert stopped.returncode == 0
    assert "what had not finished within 0.5 s was cut" in stopped.stderr
    assert home.pid() is None
    assert list(home.runtime.iterdir()) == []


def test_server_stops_whatever_became_of_its_configuration(home: Home) -> None:
    status = home.start()
    (home.path / "llm-proxy.env").write_text("NO_SUCH_SETTING=1\n")
    seen = home.run("status")
    assert (seen.returncode, str(status["pid"]) in seen.stdout) == (0, True)
    assert "llm-proxy.env:1: NO_SUCH_SETTING is no setting" in seen.stderr
    stopped = home.run("stop")
    assert stopped.returncode == 0, stopped.stderr
    assert home.pid() is None


def test_server_that_finishes_what_runs_says_so(home: Home) -> None:
    status = home.start()
    host, port = status["address"].split(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as client:
        token = (home.path / "management_token").read_text().strip()
        head = "POST /manage/projects HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n"
        client.sendall(f"{head}Authorization: Bearer {token}\r\n\r\n{{".encode())
        with home.begin("stop", "--timeout", "300") as stopping:
            until(lambda: home.status()["stopping"])
            shown, health, reload = home.run("status"), home.run("health"), home.run("reload")
            client.close()
            stopping.communicate(timeout=TIMEOUT_S)
    assert (shown.returncode, ", stopping" in shown.stdout) == (0, True)
    assert (health.returncode, "is stopping" in health.stderr) == (5, True)
    assert (reload.returncode, "nothing was reloaded" in reload.stderr) == (1, True)
    assert stopping.returncode == 0


def test_foreground_server_shows_where_it_is_and_ends_by_ctrl_c(home: Home) -> None:
    with home.begin("start", "--addr", "127.0.0.1:0") as server:
        try:
            assert server.stderr is not None
            banner = list(iter(server.stderr.readline, "Ctrl-C stops it.\n"))
            (ready,) = [line for line in banner if "is ready on" in line]
            assert get(ready.strip().rpartition("http://")[2], "/ready") == 200
            server.send_signal(signal.SIGINT)
            assert server.wait(TIMEOUT_S) == 0
        finally:
            server.kill()
