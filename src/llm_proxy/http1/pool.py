"""Kept-alive connections to one origin, and the opening of new ones."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from dataclasses import dataclass

from llm_proxy.http1.connection import ResponseHandler, UpstreamConnection, UpstreamError
from llm_proxy.http1.timers import Timers
from llm_proxy.providers import Connection, Timeouts


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    host: str
    port: int = 0
    tls: ssl.SSLContext | None = None
    unix_path: str | None = None  # instead of host and port

    def __str__(self) -> str:
        return self.unix_path or f"{self.host}:{self.port}"


class Pool:
    """Hands connections to handlers; the last one put back is the first one taken."""

    def __init__(
        self,
        origin: Origin,
        timers: Timers,
        *,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - immutable
        limits: Connection = Connection(),  # noqa: B008
        connect_retries: int = 0,
    ) -> None:
        self.origin = origin
        self.timers = timers
        self.timeouts = timeouts
        self._limits = limits
        self._connect_retries = connect_retries
        self._loop = asyncio.get_running_loop()
        self._idle: list[UpstreamConnection] = []
        self._open: set[UpstreamConnection] = set()
        self._opening: dict[ResponseHandler, asyncio.Task[None]] = {}
        self._waiting: deque[tuple[float, ResponseHandler]] = deque()

    def acquire(self, handler: ResponseHandler) -> None:
        """Calls `handler.upstream_ready`, at once when a connection is idle, or
        `response_fails`. A handler that doesn't want it any more must call `cancel`."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed:
                handler.upstream_ready(connection)
                return
        self.open(handler)

    def open(self, handler: ResponseHandler) -> None:
        """As `acquire`, but never a connection that was used before."""
        limit = self._limits.max_conns
        if limit and len(self._open) + len(self._opening) >= limit:
            if not self._waiting:
                self.timers.watch(self)
            self._waiting.append((self.timers.now + self.timeouts.connect, handler))
            return
        task = self._loop.create_task(self._connect(handler))
        self._opening[handler] = task

    def cancel(self, handler: ResponseHandler) -> None:
        """The connection being opened, or waited for, isn't needed."""
        task = self._opening.pop(handler, None)
        if task is not None:
            task.cancel()  # it may not even have begun, so its place is free from here on
            self._serve_waiting()
        elif self._waiting:
            self._waiting = deque(entry for entry in self._waiting if entry[1] is not handler)

    async def _connect(self, handler: ResponseHandler) -> None:
        error: UpstreamError | None = None
        connection: UpstreamConnection | None = None
        try:
            for _ in range(1 + self._connect_retries):
                try:
                    async with asyncio.timeout(self.timeouts.connect):
                        connection = await self._connect_once()
                    break
                except (TimeoutError, OSError, ssl.SSLError, UnicodeError) as exc:
                    error = UpstreamError("upstream_unreachable", self._explain(exc))
        finally:
            self._opening.pop(handler, None)
            if connection is None:
                self._serve_waiting()
        if connection is not None:
            self._open.add(connection)
            self.timers.watch(connection)  # not before: of a cancelled one nothing is heard again
            handler.upstream_ready(connection)
        elif error is not None:
            handler.response_fails(error)

    async def _connect_once(self) -> UpstreamConnection:
        origin = self.origin
        if origin.unix_path is not None:
            _, connection = await self._loop.create_unix_connection(
                lambda: UpstreamConnection(self), origin.unix_path
            )
        else:
            _, connection = await self._loop.create_connection(
                lambda: UpstreamConnection(self),
                origin.host,
                origin.port,
                ssl=origin.tls,
                server_hostname=origin.host if origin.tls else None,
            )
        if connection.is_closed:  # its end came before we did: nobody would hear of it
            raise ConnectionResetError
        return connection

    def _explain(self, exc: Exception) -> str:
        if isinstance(exc, TimeoutError):
            return f"Connecting to the upstream took longer than {self.timeouts.connect:g} s."
        if isinstance(exc, ssl.SSLCertVerificationError):
            return f"The upstream's certificate is not trusted: {exc.verify_message}."
        if isinstance(exc, ssl.SSLError):
            return f"TLS with the upstream failed: {exc.reason or 'handshake refused'}."
        if isinstance(exc, socket.gaierror):
            return "The upstream's host name could not be resolved."
        if isinstance(exc, ConnectionRefusedError):
            return "The upstream refused the connection."
        return "The upstream could not be reached."

    def release(self, connection: UpstreamConnection) -> None:
        """A connection whose response is complete; the next handler gets it, or it idles."""
        if self._waiting:
            _, handler = self._waiting.popleft()
            handler.upstream_ready(connection)
        elif len(self._idle) < self._limits.max_idle_conns:
            connection.deadline = self.timers.now + self._limits.idle_timeout
            self._idle.append(connection)
        else:
            connection.abort()

    def lost(self, connection: UpstreamConnection) -> None:
        """Called by the connection when its transport is gone."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._serve_waiting()

    def _serve_waiting(self) -> None:
        limit = self._limits.max_conns
        while self._waiting and len(self._open) + len(self._opening) < limit:
            _, handler = self._waiting.popleft()
            self.open(handler)

    def check(self, now: float) -> None:
        while self._waiting and self._waiting[0][0] <= now:
            _, handler = self._waiting.popleft()
            handler.response_fails(
                UpstreamError(
                    "overloaded",
                    f"All {self._limits.max_conns} connections to the upstream are in use.",
                )
            )
        if not self._waiting:
            self.timers.forget(self)

    async def close(self) -> None:
        """Aborts every connection, and waits for those still being opened."""
        for connection in tuple(self._open):
            connection.abandon()
        tasks = tuple(self._opening.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
