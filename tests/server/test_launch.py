from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from llm_proxy.server.pidfile import running_pid
from llm_proxy.server.state import read_state

PROGRAM = """
import sys
from llm_proxy.errors import LLMProxyError
from llm_proxy.server.launch import run_in_foreground, start_daemon
from llm_proxy.settings import load_settings

flags = {"listen_addr": sys.argv[2]}
try:
    if sys.argv[1] == "daemon":
        started = start_daemon(load_settings(flags), flags=flags)
        print(started.pid, started.has_projects, len(started.created_secrets), flush=True)
    else:
        announce = lambda started: print(started.pid, started.address, flush=True)
        sys.exit(run_in_foreground(load_settings(flags), flags=flags, announce=announce))
except LLMProxyError as exc:
    sys.exit(f"failed: {exc}")
"""


def start(home: Path, kind: str, address: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, kind, address],
        env=os.environ | {"LLM_PROXY_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_daemon_is_ready_when_the_call_returns_and_logs_at_home(tmp_path: Path) -> None:
    with start(tmp_path, "daemon", "127.0.0.1:0") as program:
        output, _ = program.communicate(timeout=30)
    try:
        pid, has_projects, created = output.split()
        assert running_pid(tmp_path / "server.pid") == int(pid)
        assert (has_projects, created) == ("False", "2")
        assert '"ready on 127.0.0.1:' in (tmp_path / "server.log").read_text()
    finally:
        if (running := running_pid(tmp_path / "server.pid")) is not None:
            os.kill(running, signal.SIGTERM)


def test_daemon_that_cannot_start_says_why(tmp_path: Path) -> None:
    with start(tmp_path, "daemon", "192.0.2.1:80") as program:
        _, errors = program.communicate(timeout=30)
    assert "failed: 192.0.2.1 is not an address of this machine" in errors
    assert program.returncode == 1
    assert "192.0.2.1" in (tmp_path / "server.log").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["server.log"]


def test_foreground_server_announces_itself_logs_to_stderr_and_drains(tmp_path: Path) -> None:
    with start(tmp_path, "foreground", "127.0.0.1:0") as program:
        try:
            assert program.stdout is not None
            pid, address = program.stdout.readline().split()
            assert int(pid) == program.pid
            assert address.startswith("127.0.0.1:")
            program.send_signal(signal.SIGINT)
            _, errors = program.communicate(timeout=30)
        finally:
            program.kill()
    assert program.returncode == 0
    assert '"stopped"' in errors
    assert not (tmp_path / "server.log").exists()


TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1], "foreground", "127.0.0.1:0"])
"""


def test_foreground_server_stops_when_its_terminal_hangs_up(tmp_path: Path) -> None:
    """While the SIGHUP that somebody sends means: reload."""
    terminal, end = os.openpty()
    program = subprocess.Popen(
        [sys.executable, "-c", TERMINAL, PROGRAM],
        env=os.environ | {"LLM_PROXY_HOME": str(tmp_path)},
        stdin=end,
        stdout=subprocess.PIPE,
        stderr=end,
        text=True,
        start_new_session=True,
    )
    os.close(end)
    with program:
        try:
            assert program.stdout is not None
            program.stdout.readline()
            program.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + 30
            while (state := read_state(tmp_path / "server.json")) and not state.last_reload:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert program.poll() is None
            os.close(terminal)
            assert program.wait(30) == 0
        finally:
            program.kill()
    assert not (tmp_path / "server.pid").exists()
