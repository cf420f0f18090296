"""Hypercorn, serving the control plane inside the supervisor."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from hypercorn.asyncio import serve
from hypercorn.config import Config

from llm_proxy.server.sockets import BACKLOG

# "Running on …" and the like are of no interest: the private socket's name says nothing.
_log = logging.getLogger(__name__ + ".hypercorn")
_log.setLevel(logging.WARNING)

_IDLE_TIMEOUT_S = 120
_GRACE_S = 3.0  # for answers under way at the end


class ControlServer:
    def __init__(self, app: Any, sockets: Sequence[socket.socket]) -> None:
        """Takes over the listening `sockets`."""
        self._stopping = asyncio.Event()
        binds = [f"fd://{sock.detach()}" for sock in sockets]
        self._task: asyncio.Task[None] = asyncio.create_task(
            serve(app, _configure(binds), shutdown_trigger=self._stopping.wait),
            name="control plane",
        )

    async def wait(self) -> None:
        """Returns only after `stop`; raises what ended it before that."""
        await asyncio.shield(self._task)

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
    config.keep_alive_timeout = _IDLE_TIMEOUT_S
    config.keep_alive_max_requests = 1_000_000
    config.read_timeout = _IDLE_TIMEOUT_S
    config.graceful_timeout = _GRACE_S
    return config
