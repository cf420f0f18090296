"""The upstream of bench_streams: streams whose events say when they were sent, and short answers.

    bench_streams_upstream.py GAP_SECONDS      prints the port it listens on

A request with `X-Events: N` gets N events, GAP apart; with 0 it gets one, and then silence. Others
get JSON. Events keep to the schedule of their stream: one that is late doesn't delay the rest.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from typing import cast

import uvloop

GAP_S = float(sys.argv[1])
EVENT = (
    b'data: {"at":%020d,"id":"chatcmpl-1","object":"chat.completion.chunk","created":1677652288,'
    b'"model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":" hello"},'
    b'"finish_reason":null}]}\n\n'
)
SIZE = b"%x\r\n" % len(EVENT % 0)
LAST = b"0\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CONTENT = b'{"id":"chatcmpl-1","object":"chat.completion","choices":[],"pad":"' + b"x" * 270 + b'"}'
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    % len(CONTENT)
) + CONTENT


def frame() -> bytes:
    return SIZE + EVENT % time.monotonic_ns() + b"\r\n"


class Upstream(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._loop = asyncio.get_running_loop()
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        lines = head.lower().split(b"\r\n")[1:]
        named = dict(line.split(b": ", 1) for line in lines)
        if len(rest) >= int(named.get(b"content-length", 0)):
            self._buffer = b""  # no pipelining here
            self._answer(named.get(b"x-events"))

    def _answer(self, events: bytes | None) -> None:
        if events is None:
            self._transport.write(ANSWER)
            return
        self._left = int(events) - 1
        self._next = self._loop.time() + GAP_S
        self._transport.write(HEAD + frame() + (b"" if self._left else LAST))
        if self._left > 0:
            self._loop.call_at(self._next, self._send)

    def _send(self) -> None:
        if self._transport.is_closing():
            return
        self._left -= 1
        self._next += GAP_S
        self._transport.write(frame() + (b"" if self._left else LAST))
        if self._left:
            self._loop.call_at(self._next, self._send)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    gc.freeze()
    gc.disable()
    await server.serve_forever()


uvloop.run(main())
