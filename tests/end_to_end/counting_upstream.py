"""An upstream that counts what reaches it, by name, and answers at once; and a fast client."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final

ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
LIMIT_S: Final = 20.0


class _Counting(asyncio.Protocol):
    def __init__(self, upstream: CountingUpstream) -> None:
        self._upstream = upstream
        self._received = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            self._upstream.arrived(head)
            self._transport.write(ANSWER)


class CountingUpstream:
    """Requests have no body; what it is for is in their query, `?for=NAME`."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.on_arrival: Callable[[str], None] = lambda name: None
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self.address = ""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._ready.wait(LIMIT_S)

    def arrived(self, head: bytes) -> None:
        name = head.partition(b"?for=")[2].partition(b" ")[0].decode()
        self.counts[name] += 1
        self.on_arrival(name)

    def _run(self) -> None:
        self._loop.run_until_complete(self._listen())
        self._loop.run_forever()
        self._server.close()
        self._loop.close()

    async def _listen(self) -> None:
        self._server = await self._loop.create_server(lambda: _Counting(self), "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.address = f"{host}:{port}"
        self._ready.set()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


async def ask(address: str, token: str, *, name: str, count: int, connections: int) -> Counter[str]:
    """`count` requests over so many connections; their status codes, "lost" without an answer."""
    host, _, port = address.rpartition(":")
    request = (
        f"GET /v1/models?for={name} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"
    ).encode()
    answers: Counter[str] = Counter()
    shares = [count // connections + (n < count % connections) for n in range(connections)]

    async def one(share: int) -> None:
        writer: asyncio.StreamWriter | None = None
        for _ in range(share):
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(request)
                async with asyncio.timeout(LIMIT_S):
                    answers[await _answer(reader)] += 1
            except (OSError, EOFError):
                answers["lost"] += 1
                if writer is not None:
                    writer.transport.abort()
                writer = None
        if writer is not None:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    await asyncio.gather(*(one(share) for share in shares if share))
    return answers


async def _answer(reader: asyncio.StreamReader) -> str:
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            await reader.readexactly(int(line.partition(b":")[2]))
    return head[9:12].decode()
