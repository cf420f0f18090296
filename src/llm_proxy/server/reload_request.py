"""Asking a running server from outside to read its configuration again."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from llm_proxy.errors import LLMProxyError
from llm_proxy.server.pidfile import running_pid
from llm_proxy.server.state import ServerState, read_state

_POLL_S = 0.02
TIMEOUT_S = 60.0  # a reload that is under way may take a quarter of it, and so may the next


def request_reload(
    pid: int, *, pid_file: Path, state_file: Path, timeout_s: float = TIMEOUT_S
) -> ServerState:
    """The server's state once it has reloaded; raises its reason when it refused."""
    # One that begins after this look at the state reads what is in the files now.
    state = _state(pid, state_file)
    if state is None:
        raise LLMProxyError(
            f"the server with pid {pid} left no state in {state_file} that this version can read; "
            "use `llm-proxy server restart`"
        )
    number = state.reloads + 1
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGHUP)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        time.sleep(_POLL_S)
        if running_pid(pid_file) != pid:
            raise LLMProxyError(f"the server with pid {pid} ended during the reload; see its log")
        state = _state(pid, state_file)
        if state is None or state.last_reload is None or state.last_reload.number < number:
            continue
        if state.last_reload.error is not None:
            raise LLMProxyError(f"the old configuration stays in force: {state.last_reload.error}")
        return state
    raise LLMProxyError(
        f"the server with pid {pid} has not said within {timeout_s:g} s that it reloaded; "
        "see its log"
    )


def _state(pid: int, path: Path) -> ServerState | None:
    """Raises when the server will not reload any more."""
    state = read_state(path)
    if state is None or state.pid != pid:
        return None
    if state.is_stopping:
        raise LLMProxyError(f"the server with pid {pid} is stopping; nothing was reloaded")
    return state
