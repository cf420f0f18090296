"""Kept-alive connections to one origin, and the opening of new ones."""

from __future__ import annotations

import asyncio
from collections import deque

from llm_proxy.http1.connection import ResponseHandler, UpstreamConnection, UpstreamError
from llm_proxy.http1.dialer import Dialer
from llm_proxy.http1.origin import Origin
from llm_proxy.http1.resolver import Resolver
from llm_proxy.http1.retry import Retries
from llm_proxy.http1.timers import Timers
from llm_proxy.providers import Connection, Timeouts


class Pool:
    """Hands connections to handlers; the last one put back is the first one taken."""

    def __init__(
        self,
        origin: Origin,
        timers: Timers,
        *,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - immutable
        limits: Connection = Connection(),  # noqa: B008
        attempts: int = 0,
        resolver: Resolver | None = None,
    ) -> None:
        """`attempts` are tries after the first, to connect or of whole requests."""
        self.origin = origin
        self.timers = timers
        self.timeouts = timeouts
        self._limits = limits
        self.retries = Retries(attempts)
        self.connects = 0  # since the start, as are the failures
        self.connect_failures = 0
        self._dialer = Dialer(origin, timeout_s=timeouts.connect, resolver=resolver or Resolver())
        self._loop = asyncio.get_running_loop()
        self._idle: list[UpstreamConnection] = []
        self._open: set[UpstreamConnection] = set()
        self._opening: dict[ResponseHandler, asyncio.Task[None]] = {}
        self._waiting: deque[tuple[float, ResponseHandler]] = deque()

    @property
    def open_count(self) -> int:
        return len(self._open)

    @property
    def idle_count(self) -> int:
        return len(self._idle)

    @property
    def waiting_count(self) -> int:
        """Handlers without a connection: those that one is being opened for too."""
        return len(self._waiting) + len(self._opening)

    def acquire(self, handler: ResponseHandler) -> None:
        """Calls `handler.upstream_ready`, at once when a connection is idle, or
        `response_fails`. A handler that doesn't want it any more must call `cancel`."""
        self.retries.count_request()
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
            connection = await self._dial()
        except UpstreamError as exc:
            error = exc
        finally:
            if self._opening.get(handler) is asyncio.current_task():  # not one asked for since
                del self._opening[handler]
            if connection is None:
                self._serve_waiting()
        if connection is not None:
            self._open.add(connection)
            self.timers.watch(connection)  # not before: of a cancelled one nothing is heard again
            handler.upstream_ready(connection)
        elif error is not None:
            handler.response_fails(error)

    async def _dial(self) -> UpstreamConnection:
        tried = 0
        while True:
            try:
                connection = await self._dialer.dial(lambda: UpstreamConnection(self))
            except UpstreamError:
                self.connect_failures += 1
                tried += 1
                if (wait_s := self.retries.delay(tried)) is None:
                    raise
            else:
                self.connects += 1
                return connection
            await asyncio.sleep(wait_s)

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
        self._waiting.clear()  # or their turn would come
        for connection in tuple(self._open):
            connection.abandon()
        tasks = tuple(self._opening.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
