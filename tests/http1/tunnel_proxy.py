"""A real CONNECT proxy, as good or as bad as a test wants it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class TunnelProxy:
    """Answers each CONNECT with `answer`; to 200 Connection established it connects the tunnel
    to 127.0.0.1 at the port that was asked for, whatever the host."""

    def __init__(self) -> None:
        self.answer = ESTABLISHED
        self.is_silent = False
        self.heads: list[bytes] = []  # of the requests, as received
        self.port = 0
        self._server: asyncio.Server
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def listen(self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self._server = await asyncio.start_server(self._accept, host, 0, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            if self.is_silent:
                await reader.read()
                return
            if self.answer != ESTABLISHED:
                writer.write(self.answer)
                await reader.read()
                return
            port = int(head.split(b" ")[1].rpartition(b":")[2])
            upstream = await asyncio.open_connection("127.0.0.1", port)
            self._writers.add(upstream[1])
            writer.write(ESTABLISHED)
            await asyncio.gather(_pump(reader, upstream[1]), _pump(upstream[0], writer))

    async def close(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _ in range(3):
            await asyncio.sleep(0)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, RuntimeError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
