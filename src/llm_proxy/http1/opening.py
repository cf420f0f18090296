"""A connection on its way: whatever must be said before its owner may have it is said here."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final, cast

MAX_RECEIVED: Final = 65536  # bytes that nobody waits for


class Opening(asyncio.Protocol):
    """Keeps what arrives until the transport is handed over to its real protocol."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self._received = b""
        self._has_ended = False
        self._news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._news.set()
        if len(self._received) > MAX_RECEIVED:
            self.abort()

    def eof_received(self) -> None:
        self._has_ended = True
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._has_ended = True
        self._news.set()

    def write(self, data: bytes) -> None:
        if self._has_ended:
            raise ConnectionResetError
        self.transport.write(data)

    async def read_head(self, limit: int) -> bytes:
        """What comes until the first empty line, included. Raises ValueError when something comes
        after it or it doesn't within `limit` bytes, ConnectionError when the connection ends."""
        while (end := self._received.find(b"\r\n\r\n", 0, limit)) < 0:
            if len(self._received) >= limit:
                raise ValueError(f"its head is longer than {limit} bytes")
            if self._has_ended:
                raise ConnectionResetError
            self._news.clear()
            await self._news.wait()
        head, self._received = self._received, b""
        if len(head) > end + 4:
            raise ValueError("it sent more than was asked for")
        return head

    async def start_tls(self, context: ssl.SSLContext, server_hostname: str) -> None:
        """May be called again, for TLS in TLS."""
        if self._received:
            error = ssl.SSLError("the server speaks first, so it does not speak TLS")
            error.reason = "NOT_TLS"
            raise error
        if self._has_ended:
            raise ConnectionResetError
        transport = await asyncio.get_running_loop().start_tls(
            self.transport, self, context, server_hostname=server_hostname
        )
        if transport is None:  # uvloop never does; asyncio when the connection ended
            raise ConnectionResetError
        self.transport = transport

    def hand_over(self, protocol: asyncio.Protocol) -> None:
        """`protocol` takes over; nothing may have arrived yet, since nobody asked for anything."""
        if self._has_ended or self._received or self.transport.is_closing():
            raise ConnectionResetError
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)

    def abort(self) -> None:
        self.transport.abort()
