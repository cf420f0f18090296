"""The listening sockets of a worker: open together, closed together, paused when files run out."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final, Protocol

logger = logging.getLogger(__name__)

BACKLOG: Final = 4096
TLS_SHUTDOWN_S: Final = 5.0  # for a client that doesn't say goodbye
_WARN_EVERY_S: Final = 60.0
_MANY: Final = 1 << 30
_LARGEST_RESERVE: Final = 256  # descriptors kept for upstreams while no client is let in


class Acceptor(Protocol):
    """Makes connections of what comes to one listening socket."""

    async def start(self) -> None: ...

    def pause(self) -> None:
        """May be started again."""

    def close(self) -> None:
        """For good. What was accepted still becomes a connection."""

    async def wait_closed(self) -> None:
        """After `close`: gives up what is no connection yet."""


class ServerAcceptor:
    """The loop's own server: the cheapest way, and the usual one."""

    def __init__(
        self,
        sock: socket.socket,
        make: Callable[[], asyncio.Protocol],
        *,
        context: ssl.SSLContext | None,
        handshake_timeout_s: float,
    ) -> None:
        self._sock = sock
        self._make = make
        self._context = context
        self._handshake_timeout_s = handshake_timeout_s
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        # A duplicate: the server closes its own, and this one is needed after a pause.
        sock = self._sock.dup()
        sock.setblocking(False)
        has_tls = self._context is not None
        create = loop.create_unix_server if sock.family == socket.AF_UNIX else loop.create_server
        try:
            self._server = await create(
                self._make,
                sock=sock,
                backlog=BACKLOG,
                ssl=self._context,
                ssl_handshake_timeout=self._handshake_timeout_s if has_tls else None,
                ssl_shutdown_timeout=TLS_SHUTDOWN_S if has_tls else None,
            )
        except BaseException:
            sock.close()
            raise

    def pause(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def close(self) -> None:
        self.pause()
        self._sock.close()

    async def wait_closed(self) -> None:
        return


class Listeners:
    """Watched by the timers, so that too many connections never stop those that there are."""

    def __init__(self, acceptors: Sequence[Acceptor]) -> None:
        self._acceptors = acceptors
        self._is_open = False
        self._is_paused = False
        self._resuming: asyncio.Task[None] | None = None
        self._warned_at = float("-inf")
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._limit = _MANY if soft == resource.RLIM_INFINITY else soft
        self._reserve = min(self._limit // 8, _LARGEST_RESERVE)

    async def open(self) -> None:
        self._is_open = True
        for acceptor in self._acceptors:
            await acceptor.start()

    def check(self, now: float) -> None:
        if not self._is_open or self._resuming is not None:
            return
        left = self._limit - _lowest_free_descriptor(self._limit)
        if not self._is_paused and left < self._reserve:
            self._pause(now)
        elif self._is_paused and left >= 2 * self._reserve:
            self._is_paused = False
            self._resuming = asyncio.get_running_loop().create_task(self._resume())

    def _pause(self, now: float) -> None:
        self._is_paused = True
        for acceptor in self._acceptors:
            acceptor.pause()
        if now - self._warned_at >= _WARN_EVERY_S:
            self._warned_at = now
            logger.error(
                "nearly all of the %d files that may be open are in use: new connections wait "
                "until others end; raise the limit (ulimit -n, LimitNOFILE), or start more workers",
                self._limit,
            )

    async def _resume(self) -> None:
        try:
            for acceptor in self._acceptors:
                await acceptor.start()
        except OSError as exc:
            logger.error("connections can't be accepted again yet: %s", exc)
            for acceptor in self._acceptors:
                acceptor.pause()
            self._is_paused = True
        finally:
            self._resuming = None

    def close(self) -> None:
        """Nothing more is accepted; what was accepted a moment ago still becomes a connection."""
        self._is_open = False
        if self._resuming is not None:
            self._resuming.cancel()
        for acceptor in self._acceptors:
            acceptor.close()

    async def wait_closed(self) -> None:
        if self._resuming is not None:
            await asyncio.gather(self._resuming, return_exceptions=True)
        for acceptor in self._acceptors:
            acceptor.pause()  # it may have been resumed in spite of all
            await acceptor.wait_closed()


def _lowest_free_descriptor(limit: int) -> int:
    """As good as the number of those in use, and cheaper to find out."""
    try:
        free = os.dup(2)
    except OSError:
        return limit
    os.close(free)
    return free
