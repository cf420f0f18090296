"""Ending a running server from outside: ask it to drain, then insist, then kill."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

from llm_proxy.server.pidfile import running_pid
from llm_proxy.server.state import ServerState, WorkerState
from llm_proxy.server.stop_request import leave_stop_request

Outcome = Literal["drained", "cut", "killed"]

_POLL_S = 0.05
INSIST_S = 6.0  # a second SIGTERM ends a server that still lives within a few seconds
_ENDING_S = 20.0  # at the end of its drain a server still hands on counts and records


def stop_server(
    pid_file: Path, state: ServerState | None, *, timeout_s: float, insist_s: float = INSIST_S
) -> Outcome:
    """Whether what ran could finish, was cut at the timeout, or the server didn't obey.

    It is gone either way.
    """
    if (pid := running_pid(pid_file)) is None:
        return "drained"
    is_told = _leave_request(pid, state, timeout_s)
    began = time.monotonic()
    _send(pid, signal.SIGTERM)
    if _is_gone_within(pid_file, pid, timeout_s + (_ENDING_S if is_told else 0.0)):
        return "drained" if time.monotonic() - began < timeout_s else "cut"
    _send(pid, signal.SIGTERM)
    if not _is_gone_within(pid_file, pid, insist_s):
        _send(pid, signal.SIGKILL)
        # Its workers drain when it is gone, but time is up.
        for worker in _workers(state, pid):
            _send(worker.pid, signal.SIGKILL)
        _is_gone_within(pid_file, pid, insist_s)
    return "killed"


def _leave_request(pid: int, state: ServerState | None, timeout_s: float) -> bool:
    """Whether the server knows how long its requests may take to finish."""
    if state is None or state.pid != pid or state.runtime_folder is None:
        return False
    return leave_stop_request(Path(state.runtime_folder), timeout_s)


def _workers(state: ServerState | None, pid: int) -> list[WorkerState]:
    return [*state.workers, *state.draining] if state is not None and state.pid == pid else []


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
