"""Ending a running server from outside: ask it to drain, then insist, then kill."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from llm_proxy.server.pidfile import running_pid
from llm_proxy.server.state import ServerState

_POLL_S = 0.05
INSIST_S = 5.0  # a second SIGTERM ends a server that still lives within milliseconds


def stop_server(
    pid_file: Path, state: ServerState | None, *, timeout_s: float, insist_s: float = INSIST_S
) -> bool:
    """Whether the running server drained in time; it is gone either way."""
    if (pid := running_pid(pid_file)) is None:
        return True
    _send(pid, signal.SIGTERM)
    if _is_gone_within(pid_file, pid, timeout_s):
        return True
    _send(pid, signal.SIGTERM)
    if not _is_gone_within(pid_file, pid, insist_s):
        _send(pid, signal.SIGKILL)
        # Its workers drain when it is gone, but time is up.
        for worker in state.workers if state is not None and state.pid == pid else []:
            _send(worker.pid, signal.SIGKILL)
        _is_gone_within(pid_file, pid, insist_s)
    return False


def _is_gone_within(pid_file: Path, pid: int, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while running_pid(pid_file) == pid:
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
