from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator

import pytest

from llm_proxy.http1.opening import MAX_RECEIVED, Opening

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n"


class Owner(asyncio.Protocol):
    """Whoever gets the connection in the end."""

    def __init__(self) -> None:
        self.received = b""
        self.transport: asyncio.BaseTransport | None = None
        self.has_news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.has_news.set()


class Ends:
    """An opening, and the server's end of it."""

    def __init__(self) -> None:
        self.opening: Opening
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def start(self) -> None:
        accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
        accepted = asyncio.Queue()
        self._server = await asyncio.start_server(
            lambda *streams: accepted.put_nowait(streams), "127.0.0.1", 0
        )
        port = self._server.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        _, self.opening = await loop.create_connection(Opening, "127.0.0.1", port)
        self.reader, self.writer = await accepted.get()

    async def close(self) -> None:
        self._server.close()
        self.opening.abort()
        self.writer.transport.abort()
        for _ in range(3):
            await asyncio.sleep(0)

    async def is_over(self) -> None:
        """Returns once the opening knows that the connection ended."""
        async with asyncio.timeout(30):
            while not self.opening.transport.is_closing():
                await asyncio.sleep(0.001)


@pytest.fixture
async def ends(anyio_backend: object) -> AsyncIterator[Ends]:
    ends = Ends()
    await ends.start()
    yield ends
    await ends.close()


async def test_head_is_read_however_it_comes(ends: Ends) -> None:
    ends.opening.write(b"question")
    assert await ends.reader.read(8) == b"question"
    reading = asyncio.create_task(ends.opening.read_head(100))
    for byte in HEAD:
        ends.writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert await reading == HEAD


async def test_head_that_came_before_it_is_read_is_no_other(ends: Ends) -> None:
    for line in HEAD.splitlines(keepends=True):
        ends.writer.write(line)
        await asyncio.sleep(0.001)
    assert await ends.opening.read_head(100) == HEAD


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (HEAD + b"x", "it sent more than was asked for"),
        (b"A: b\r\n" * 50, "its head is longer than 100 bytes"),
        (b"A" * 98 + b"\r\n\r\n", "its head is longer than 100 bytes"),
    ],
)
async def test_head_has_an_end_and_a_limit(ends: Ends, sent: bytes, reason: str) -> None:
    ends.writer.write(sent)
    with pytest.raises(ValueError, match=reason):
        await ends.opening.read_head(100)


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_connection_that_ends_is_an_error_everywhere(ends: Ends, how: str) -> None:
    reading = asyncio.create_task(ends.opening.read_head(100))
    ends.writer.write(b"HTTP/1.1 2")
    await asyncio.sleep(0)
    ends.writer.close() if how == "close" else ends.writer.transport.abort()
    with pytest.raises(ConnectionResetError):
        await reading
    await ends.is_over()
    with pytest.raises(ConnectionResetError):
        ends.opening.write(b"x")
    with pytest.raises(ConnectionResetError):
        ends.opening.hand_over(Owner())


async def test_tls_on_an_ended_connection_is_an_error(ends: Ends) -> None:
    ends.writer.close()
    await ends.is_over()
    with pytest.raises(ConnectionResetError):
        await ends.opening.start_tls(ssl.create_default_context(), "a.test")


async def test_server_that_speaks_first_speaks_no_tls(ends: Ends) -> None:
    ends.writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    reading = asyncio.create_task(ends.opening.read_head(100))  # to know when it has arrived
    await asyncio.sleep(0.01)
    reading.cancel()
    with pytest.raises(ssl.SSLError, match="speaks first"):
        await ends.opening.start_tls(ssl.create_default_context(), "a.test")
    with pytest.raises(ConnectionResetError):
        ends.opening.hand_over(Owner())


async def test_owner_gets_the_transport_and_what_comes(ends: Ends) -> None:
    owner = Owner()
    ends.opening.hand_over(owner)
    assert owner.transport is ends.opening.transport
    ends.writer.write(b"answer")
    async with asyncio.timeout(30):
        await owner.has_news.wait()
    assert owner.received == b"answer"


async def test_flood_that_nobody_waits_for_is_cut(ends: Ends) -> None:
    ends.writer.write(b"x" * (MAX_RECEIVED + 1))
    await ends.is_over()
    with pytest.raises(ConnectionResetError):
        ends.opening.hand_over(Owner())
