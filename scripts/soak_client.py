"""One client connection of the soak: bytes out, answers back, and every way to hang up."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

ANSWER_S = 20.0  # until an answer that doesn't move is an error


class Unexpected(Exception):
    """An answer, or the lack of one, that a correct gateway would not give."""


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytearray = field(default_factory=bytearray)
    size: int = 0  # of the body, whether kept or not
    is_whole: bool = False

    @property
    def request_id(self) -> str:
        return self.headers.get("llm-proxy-request-id", "")

    @property
    def keeps_alive(self) -> bool:
        return self.is_whole and self.headers.get("connection") != "close"


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, host: str, port: int, *, receive_buffer: int = 0) -> Client:
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
        limit = receive_buffer or 65536
        return cls(*await asyncio.open_connection(sock=sock, limit=limit))

    @property
    def is_usable(self) -> bool:
        return not self.reader.at_eof() and not self._writer.is_closing()

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        sock = self._writer.get_extra_info("socket")
        linger = struct.pack("ii", 1, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._writer.transport.abort()

    async def head(self) -> Answer:
        """Of the next answer, 1xx passed over."""
        while True:
            try:
                async with asyncio.timeout(ANSWER_S):
                    raw = await self.reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError) as exc:
                raise Unexpected("the connection ended without an answer") from exc
            except TimeoutError:
                raise Unexpected(f"no answer within {ANSWER_S:g} s") from None
            first, *lines = raw[:-4].decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
            status = int(first.split(" ")[1])
            if status >= 200 or status == 101:
                return Answer(status, headers)

    async def answer(self) -> Answer:
        """The next one, to its end."""
        answer = await self.head()
        await self.body(answer)
        return answer

    async def body(self, answer: Answer, *, slowly_s: float = 0.0, keep: bool = True) -> None:
        """Reads it to its end, or to the end of the connection; `slowly_s` waits between reads."""

        def take(data: bytes) -> None:
            answer.size += len(data)
            if keep:
                answer.body += data

        try:
            if answer.headers.get("transfer-encoding") == "chunked":
                await self._chunks(take)
            else:
                left = int(answer.headers.get("content-length", 0))
                while left:
                    data = await self._some(min(left, 32768))
                    left -= len(data)
                    take(data)
                    if slowly_s:
                        await asyncio.sleep(slowly_s)
            answer.is_whole = True
        except (asyncio.IncompleteReadError, ConnectionError):
            pass

    async def _chunks(self, take: Callable[[bytes], None]) -> None:
        while True:
            async with asyncio.timeout(ANSWER_S):
                size = int(await self.reader.readuntil(b"\r\n"), 16)
                data = await self.reader.readexactly(size + 2)
            if not size:
                return
            take(data[:-2])

    async def _some(self, most: int) -> bytes:
        async with asyncio.timeout(ANSWER_S):
            data = await self.reader.read(most)
        if not data:
            raise asyncio.IncompleteReadError(b"", most)
        return data
