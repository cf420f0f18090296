"""Hypercorn, serving the control plane inside the supervisor."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import cast

from hypercorn.asyncio import serve
from hypercorn.config import Config
from hypercorn.typing import ASGIFramework

from llm_proxy.errors import LLMProxyError
from llm_proxy.server.control.app import create_app
from llm_proxy.server.control.context import ControlContext
from llm_proxy.server.sockets import BACKLOG

# "Running on …" and the like are of no interest: the private socket's name says nothing.
_log = logging.getLogger(__name__ + ".hypercorn")
_log.setLevel(logging.WARNING)

_READ_TIMEOUT_S = 120
# So long does Hypercorn hold an idle connection that its client has closed, too. The gateway keeps
# its own for a shorter time: it must be the one that closes.
_KEEP_ALIVE_S = 5.0
_GRACE_S = 3.0  # for answers under way at the end


class ControlServer:
    def __init__(
        self,
        context: ControlContext,
        sockets: Sequence[socket.socket],
        *,
        keep_alive_s: float = _KEEP_ALIVE_S,
    ) -> None:
        """Takes over the listening `sockets`."""
        self._stopping = asyncio.Event()
        app = cast("ASGIFramework", create_app(context))
        config = _configure([f"fd://{sock.detach()}" for sock in sockets])
        config.keep_alive_timeout = keep_alive_s
        self._task: asyncio.Task[None] = asyncio.create_task(
            serve(app, config, shutdown_trigger=self._stopping.wait), name="control plane"
        )

    async def wait(self) -> None:
        """Goes on while it serves; raises when that ended without `stop`."""
        await asyncio.wait([self._task])
        if not self._stopping.is_set():
            cause = None if self._task.cancelled() else self._task.exception()
            raise LLMProxyError("the control plane ended by itself") from cause

    async def stop(self) -> None:
        self._stopping.set()
        # Since Python 3.12 Hypercorn waits for open connections before its own time limit starts.
        done, _ = await asyncio.wait([self._task], timeout=2 * _GRACE_S)
        if not done:
            self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


def _configure(binds: list[str]) -> Config:
    config = Config()
    config.bind = binds
    config.backlog = BACKLOG
    config.accesslog = None
    config.errorlog = _log
    config.include_server_header = False
    config.keep_alive_max_requests = 1_000_000
    config.read_timeout = _READ_TIMEOUT_S
    config.graceful_timeout = _GRACE_S
    return config
