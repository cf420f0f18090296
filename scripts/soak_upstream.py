"""The upstream of the soak: it behaves as each request's `X-Soak` header says, and prints its port.

    X-Soak: kind=KIND name=value …

json (size, delay)      JSON with `received` and `crc` of the request's body, padded to a size
stream (events, gap)    an event stream; with cut=1 it breaks off without its end, with stall=1
                        it falls silent after its events
reset (at)              a reset before the head, inside of it, or in the body
garbage                 what is no HTTP
status (code, after)    an error, with Retry-After
closes                  JSON, then the end of the connection, which was not announced
tunnel (leaves)         101, then everything is sent back; with leaves=1 it ends after a piece
early                   an answer at the head of the request, whose body is never read
counts                  {"open": connections, "streams": running}
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import struct
import zlib
from typing import cast

import httptools
import uvloop

HEAD = b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
EVENT = b'data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":" word %d"}}]}\n\n'
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
DONE = b"data: [DONE]\n\n"
MAX_STEPS = 1_000_000

connections: set[Upstream] = set()


class Upstream(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._timer: asyncio.TimerHandle | None = None
        self._is_early = self._is_tunnel = False
        connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        if self._is_tunnel:
            self._transport.write(data)
            if "leaves" in self._wanted:
                self._transport.close()
        elif not self._is_early:
            with contextlib.suppress(httptools.HttpParserUpgrade):
                self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._wanted: dict[str, str] = {}
        self._received = self._crc = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-soak":
            self._wanted = dict(item.split("=") for item in value.decode().split())

    def on_headers_complete(self) -> None:
        if self._wanted.get("kind") == "early":
            self._is_early = True
            self._write_json(413, {"error": "early"}, b"Connection: close\r\n")

    def on_body(self, body: bytes) -> None:
        self._received += len(body)
        self._crc = zlib.crc32(body, self._crc)

    def on_message_complete(self) -> None:
        if not self._is_early:
            kind = self._wanted.get("kind", "json")
            self._after(self._number("delay"), getattr(self, f"_do_{kind}"))

    def _number(self, name: str, default: float = 0.0) -> float:
        return float(self._wanted.get(name, default))

    def _after(self, seconds: float, what: object) -> None:
        if seconds:
            self._timer = self._loop.call_later(seconds, what)  # type: ignore[arg-type]
        else:
            self._timer = None
            what()  # type: ignore[operator]

    def _write_json(self, status: int, content: dict[str, object], lines: bytes = b"") -> None:
        body = json.dumps(content).encode()
        body = body.ljust(int(self._number("size")))
        self._transport.write(HEAD % (status, len(body), lines) + body)

    def _do_json(self) -> None:
        self._write_json(200, {"received": self._received, "crc": self._crc})

    def _do_tunnel(self) -> None:
        self._is_tunnel = True
        self._transport.write(SWITCHED)

    def _do_closes(self) -> None:
        self._do_json()
        self._transport.close()

    def _do_status(self) -> None:
        lines = b"Retry-After: %d\r\n" % self._number("after", 7)
        self._write_json(int(self._number("code")), {"error": "wanted"}, lines)

    def _do_garbage(self) -> None:
        self._transport.write(b"220 mail.example ESMTP\r\n\r\n")

    def _do_reset(self) -> None:
        at = self._wanted["at"]
        if at != "head":
            data = HEAD % (200, 5000, b"") + b"{" * 1000
            self._transport.write(data[:40] if at == "in_head" else data)
        self._after(0.02, self._reset)

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._transport.abort()

    def _do_stream(self) -> None:
        self._transport.write(STREAM_HEAD)
        self._sent = 0
        self._send_event()

    def _send_event(self) -> None:
        if self._transport.is_closing():
            return
        event = EVENT % self._sent
        self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))
        self._sent += 1
        if self._sent < self._number("events", 10):
            self._timer = self._loop.call_later(self._number("gap", 0.01), self._send_event)
        elif "cut" in self._wanted:
            self._transport.close()
        elif "stall" not in self._wanted:
            self._transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(DONE), DONE))

    def _do_counts(self) -> None:
        self._write_json(200, {"open": len(connections) - 1})


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    gc.freeze()
    await server.serve_forever()


uvloop.run(main())
