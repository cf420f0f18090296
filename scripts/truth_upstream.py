"""An upstream that misbehaves in a known way, and keeps a log of what it did.

    truth_upstream.py jitter --seed N       waits of a known distribution
    truth_upstream.py freeze --after N --freeze-ms MS --wait-ms MS
                                            does nothing at all for so long at its Nth request
    truth_upstream.py late --extra-ms MS    a second port that answers exactly so much later
    truth_upstream.py faults                every so many streams are cut, broken or refused
    truth_upstream.py paced                 streams with known gaps, some of them stalls

It prints its ports as a line of JSON. `GET /truth` answers with the log: an object a request.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

import httptools
import uvloop
from truth_expectations import Jitter

SPIN_S = 0.002  # timers come up to a millisecond late; the rest is waited for awake
PORTS = 2
WORDS, FIRST_MS, GAP_MS = 20, 30.0, 10.0
STALL_EVERY, STALL_MS = 5, 250.0  # 25 times the usual gap
SLOW_EVERY, SLOW_MS = 3, 60.0  # 6 times: slow, but no stall
FAULTS = ((10, "cut"), (11, "reset"), (13, "broken stream"), (17, "5xx"), (19, "4xx"))
CUT_AFTER = 7
CUT_WAIT_S = 0.02  # until what was sent is read: a reset throws away what isn't

Entry = dict[str, Any]
Log = list[Entry]


class Connection(asyncio.Protocol):
    """Just enough HTTP/1.1 for kept connections, one request at a time."""

    def __init__(self, upstream: Upstream, port: int) -> None:
        self.upstream = upstream
        self.port = port  # which of the two
        self.transport: asyncio.Transport
        self.answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_message_complete(self) -> None:
        received = time.perf_counter()
        if self.url == b"/truth":
            self.send_plain(json.dumps(self.upstream.log).encode())
            return
        entry: Entry = {"number": len(self.upstream.log) + 1, "port": self.port}
        self.upstream.log.append(entry)
        self.answering = asyncio.ensure_future(self.upstream.behave(self, entry, received))

    def connection_lost(self, error: Exception | None) -> None:
        if self.answering is not None:
            self.answering.cancel()

    def send_plain(self, body: bytes, status: bytes = b"200 OK") -> None:
        head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(head % (status, len(body)) + body)

    def start_stream(self) -> None:
        self.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        self.send_event({"delta": {"role": "assistant", "content": ""}})

    def send_word(self, number: int) -> None:
        self.send_event({"delta": {"content": f" word{number}"}})

    def send_event(self, choice: Entry) -> None:
        fields = {"id": "chatcmpl-truth", "object": "chat.completion.chunk", "created": 1}
        chunk = fields | {"model": "truth", "choices": [{"index": 0, **choice}]}
        self.send_piece(b"data: %b\n\n" % json.dumps(chunk, separators=(",", ":")).encode())

    def send_piece(self, data: bytes) -> None:
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end_stream(self, *, is_complete: bool = True) -> None:
        if is_complete:
            self.send_event({"delta": {}, "finish_reason": "stop"})
            self.send_piece(b"data: [DONE]\n\n")
        self.transport.write(b"0\r\n\r\n")


Behaviour = Callable[[Connection, Entry, float], Awaitable[None]]
ANSWER = json.dumps(
    {
        "id": "chatcmpl-truth",
        "object": "chat.completion",
        "created": 1,
        "model": "truth",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "It is so."},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4},
    }
).encode()


class Upstream:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.log: Log = []
        self.random = random.Random(options.seed)
        self.behave: Behaviour = getattr(self, options.behaviour)

    async def jitter(self, connection: Connection, entry: Entry, received: float) -> None:
        await asyncio.sleep(Jitter().draw(self.random) / 1000)
        entry["ms"] = (time.perf_counter() - received) * 1000
        connection.send_plain(ANSWER)

    async def freeze(self, connection: Connection, entry: Entry, received: float) -> None:
        if entry["number"] == self.options.after:
            time.sleep(self.options.freeze_ms / 1000)  # the whole process, as a frozen one does
            entry["frozen_ms"] = (time.perf_counter() - received) * 1000
        elif self.options.wait_ms:
            await asyncio.sleep(self.options.wait_ms / 1000)
        connection.send_plain(ANSWER)

    async def late(self, connection: Connection, entry: Entry, received: float) -> None:
        """Both ports wait, so that both answer from the same state of rest."""
        wait_ms = self.options.wait_ms + connection.port * self.options.extra_ms
        await wait_until(received + wait_ms / 1000)
        entry["ms"] = (time.perf_counter() - received) * 1000
        connection.send_plain(ANSWER)

    async def faults(self, connection: Connection, entry: Entry, received: float) -> None:
        number = entry["number"]
        fault = next((name for every, name in FAULTS if number % every == 0), "ok")
        entry["outcome"] = "cut" if fault == "reset" else fault
        if fault in ("4xx", "5xx"):
            status = b"429 Too Many Requests" if fault == "4xx" else b"500 Internal Server Error"
            connection.send_plain(b'{"error":{"message":"as asked","code":"truth"}}', status)
            return
        connection.start_stream()
        for word in range(WORDS):
            if word == CUT_AFTER and fault in ("cut", "reset"):
                await asyncio.sleep(CUT_WAIT_S)
                connection.transport.close() if fault == "cut" else connection.transport.abort()
                return
            connection.send_word(word)
            await asyncio.sleep(0)
        connection.end_stream(is_complete=fault == "ok")

    async def paced(self, connection: Connection, entry: Entry, received: float) -> None:
        number = entry["number"]
        entry["stalls"] = int(number % STALL_EVERY == 0)
        connection.start_stream()
        times = []
        for word in range(WORDS):
            wait_ms = FIRST_MS if word == 0 else GAP_MS
            if word == WORDS // 2 and number % SLOW_EVERY == 0:
                wait_ms = SLOW_MS
            if word == WORDS // 2 and number % STALL_EVERY == 0:
                wait_ms = STALL_MS
            await asyncio.sleep(wait_ms / 1000)
            connection.send_word(word)
            times.append((time.perf_counter() - received) * 1000)
        connection.end_stream()
        entry["first_ms"], entry["second_ms"] = times[:2]
        entry["gaps_ms"] = [b - a for a, b in zip(times, times[1:], strict=False)]


async def wait_until(when: float) -> None:
    """To some microseconds; only for one request at a time."""
    rest = when - time.perf_counter() - SPIN_S
    if rest > 0:
        await asyncio.sleep(rest)
    while time.perf_counter() < when:
        pass


async def serve(options: argparse.Namespace) -> None:
    upstream, loop = Upstream(options), asyncio.get_running_loop()
    servers = [
        await loop.create_server(partial(Connection, upstream, port), "127.0.0.1", 0, backlog=4096)
        for port in range(PORTS)
    ]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    print(json.dumps({"ports": ports}), flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("behaviour", choices=("jitter", "freeze", "late", "faults", "paced"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--after", type=int, default=0, help="freeze: at which request")
    parser.add_argument("--freeze-ms", type=float, default=1000.0)
    parser.add_argument("--wait-ms", type=float, default=0.0, help="before each answer")
    parser.add_argument("--extra-ms", type=float, default=0.0, help="late: of the second port")
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
