"""An upstream of exact bytes and a handler that keeps what it is told, for the HTTP/1.1 client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from llm_proxy.http1.connection import UpstreamConnection, UpstreamError
from llm_proxy.http1.origin import Origin
from llm_proxy.http1.pool import Pool
from llm_proxy.http1.response_head import ResponseHead
from llm_proxy.http1.timers import Timers, Watched
from llm_proxy.providers import Connection, Timeouts

LIMIT_S = 30.0
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class ManualTimers(Timers):
    """Time stands still until a test moves it."""

    def watch(self, thing: Watched) -> None:
        self._watched.add(thing)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for thing in tuple(self._watched):
            thing.check(self.now)

    def watches(self, thing: Watched) -> bool:
        return thing in self._watched


class Handler:
    """A ResponseHandler that sends one request and keeps what comes of it."""

    def __init__(self, pool: Pool, *, method: bytes = b"GET", ends: bool = True) -> None:
        self._pool = pool
        self._method = method
        self._ends = ends
        self.connection: UpstreamConnection | None = None
        self.head: ResponseHead | None = None
        self.body = b""
        self.ends = 0
        self.error: UpstreamError | None = None
        self.paused = False
        self.has_connection = asyncio.Event()
        self.is_done = asyncio.Event()
        self.has_news = asyncio.Event()

    def ask(self) -> Handler:
        self._pool.acquire(self)
        return self

    def upstream_ready(self, connection: UpstreamConnection) -> None:
        self.connection = connection
        connection.send(self, self._method, REQUEST, self._ends)
        self.has_connection.set()

    def response_begins(self, head: ResponseHead, body: bytes, ends: bool) -> None:
        assert self.head is None
        self.head = head
        self.response_continues(body, ends)

    def response_continues(self, body: bytes, ends: bool) -> None:
        assert not self.is_done.is_set()
        self.body += body
        self.ends += ends
        self.has_news.set()
        if ends:
            self.is_done.set()

    def response_fails(self, error: UpstreamError) -> None:
        assert not self.is_done.is_set()
        self.error = error
        self.is_done.set()

    def pause_request(self) -> None:
        self.paused = True

    def resume_request(self) -> None:
        self.paused = False

    async def done(self) -> Handler:
        async with asyncio.timeout(LIMIT_S):
            await self.is_done.wait()
        return self

    async def connected(self) -> UpstreamConnection:
        async with asyncio.timeout(LIMIT_S):
            await self.has_connection.wait()
        assert self.connection is not None
        return self.connection


class Peer:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        async with asyncio.timeout(LIMIT_S):
            return await self.reader.readuntil(b"\r\n\r\n")

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def is_left(self) -> bool:
        try:
            async with asyncio.timeout(LIMIT_S):
                return await self.reader.read(1) == b""
        except ConnectionError:
            return True


class Upstream:
    """A server whose connections a test plays, and pools of connections to it."""

    def __init__(self) -> None:
        self.timers = ManualTimers(asyncio.get_running_loop())
        self.pools: list[Pool] = []
        self.accepted: list[Peer] = []
        self.port = 0
        self._server: asyncio.Server
        self._peers: asyncio.Queue[Peer] = asyncio.Queue()

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted.append(Peer(reader, writer))
        self._peers.put_nowait(self.accepted[-1])

    async def accept(self) -> Peer:
        async with asyncio.timeout(LIMIT_S):
            return await self._peers.get()

    def pool(self, *, limits: Connection | None = None, **timeouts: Any) -> Pool:
        origin = Origin(host="127.0.0.1", port=self.port)
        pool = Pool(
            origin,
            self.timers,
            timeouts=Timeouts(**timeouts),
            limits=limits or Connection(),
        )
        self.pools.append(pool)
        return pool

    def handler(self, pool: Pool | None = None, **options: Any) -> Handler:
        return Handler(pool or self.pool(), **options)

    async def close(self) -> None:
        self._server.close()
        for pool in self.pools:
            await pool.close()
        for peer in self.accepted:
            peer.writer.transport.abort()
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.fixture
async def upstream(anyio_backend: object) -> AsyncIterator[Upstream]:
    upstream = Upstream()
    await upstream.listen()
    yield upstream
    await upstream.close()
