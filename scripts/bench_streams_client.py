"""The clients of bench_streams, in a process of their own; each prints one line of JSON.

bench_streams_client.py paced HOST PORT TOKEN STREAMS EVENTS GAP    gaps between events
bench_streams_client.py first TOKEN HOST PORT HOST PORT PAIRS       time to the first event
bench_streams_client.py hold HOST PORT TOKEN CONNECTIONS streams|idle
                                    opens them, prints, and holds them until stdin ends
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import cast

import uvloop

STALL_S = 0.060
BEAT_S = 0.005
OPENING = 64  # connections at a time
SETTLED_EVENTS = 50  # of a stream, before its gaps count
BODY = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hello!"}],"stream":true}'
# What the official SDK for Python sends, with the tracing headers that its users add.
SDK_HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:8080\r\n"
    b"Accept: application/json\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Connection: keep-alive\r\nContent-Type: application/json\r\n"
    b"User-Agent: OpenAI/Python 2.8.0\r\nX-Stainless-Lang: python\r\n"
    b"X-Stainless-Package-Version: 2.8.0\r\nX-Stainless-OS: Linux\r\nX-Stainless-Arch: x64\r\n"
    b"X-Stainless-Runtime: CPython\r\nX-Stainless-Runtime-Version: 3.12.3\r\n"
    b"X-Stainless-Async: async:asyncio\r\nx-stainless-retry-count: 0\r\n"
    b"x-stainless-read-timeout: 600\r\nOpenAI-Organization: org-0123456789abcdefghijklmn\r\n"
    b"OpenAI-Project: proj_0123456789abcdefghijklmn\r\n"
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
    b"X-Client-Application: measured/1.0 (department of idle connections)\r\n"
    b"Authorization: Bearer %b\r\n%bContent-Length: %d\r\n\r\n"
)


def request(token: str, events: int | None) -> bytes:
    wanted = b"" if events is None else b"X-Events: %d\r\n" % events
    return SDK_HEAD % (token.encode(), wanted, len(BODY)) + BODY


class Client(asyncio.Protocol):
    """Sends one request after another; tells when the answer's first event or JSON has come."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.has_answer = asyncio.Event()
        self.answered_at = 0.0

    def ask(self, data: bytes) -> None:
        self.has_answer.clear()
        self.asked_at = time.monotonic()
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        if self.has_answer.is_set():
            return
        if data.startswith(b"HTTP/1.1 ") and data[9:12] != b"200":
            sys.exit(f"unexpected answer: {data[:400]!r}")
        if b"chatcmpl" in data:
            self.answered_at = time.monotonic()
            self.has_answer.set()


class Heart:
    """When this process itself was late."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._late: deque[tuple[float, float]] = deque(maxlen=1000)
        self._due = time.monotonic() + BEAT_S
        self._loop.call_later(BEAT_S, self._beat)

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._due > BEAT_S:
            self._late.append((now, now - self._due))
        self._due = now + BEAT_S
        self._loop.call_later(BEAT_S, self._beat)

    def lateness(self, since: float) -> float:
        """The longest since then; a beat that is due and hasn't come counts too."""
        missed = time.monotonic() - self._due
        return max([0.0, missed, *(late for at, late in self._late if at >= since)])


class Gaps:
    """Of all streams of a run."""

    def __init__(self, gap_s: float, heart: Heart) -> None:
        self.all: list[float] = []
        self.stalls = {"upstream": 0, "client": 0, "between": 0}
        self._gap_s, self._heart = gap_s, heart

    def add(self, gap: float, sent_gap: float, since: float) -> None:
        self.all.append(gap)
        if gap > STALL_S:
            self.stalls[self._culprit(gap, sent_gap, since)] += 1

    def _culprit(self, gap: float, sent_gap: float, since: float) -> str:
        gap -= max(0.0, sent_gap - self._gap_s)
        if gap <= STALL_S:
            return "upstream"
        return "client" if gap - self._heart.lateness(since) <= STALL_S else "between"


class Stream(Client):
    def __init__(self, gaps: Gaps) -> None:
        self._gaps = gaps
        self._seen = 0
        self._last = self._last_sent = 0.0
        self.has_ended = asyncio.Event()
        self.is_whole = False

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        events = data.split(b'"at":')[1:]
        if events:
            first, last = (int(event[:20]) / 1e9 for event in (events[0], events[-1]))
            if self._seen > SETTLED_EVENTS:
                self._gaps.add(now - self._last, first - self._last_sent, self._last)
            self._seen += len(events)
            self._last, self._last_sent = now, last
        if data.endswith(b"\r\n0\r\n\r\n"):
            self.is_whole = True
            self.has_ended.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.has_ended.set()


async def paced(host: str, port: str, token: str, streams: str, events: str, gap: str) -> None:
    loop = asyncio.get_running_loop()
    gaps = Gaps(float(gap), Heart())
    running = []
    for _ in range(int(streams)):
        _, stream = await loop.create_connection(lambda: Stream(gaps), host, int(port))
        stream.ask(request(token, int(events)))
        running.append(stream)
    for stream in running:
        await stream.has_ended.wait()
        stream.transport.close()
    ordered = sorted(gaps.all)
    report = {
        "broken": sum(not stream.is_whole for stream in running),
        "events": len(ordered),
        "p50_ms": ordered[len(ordered) // 2] * 1e3,
        "p99_ms": ordered[len(ordered) * 99 // 100] * 1e3,
        "max_ms": ordered[-1] * 1e3,
        "stalls": gaps.stalls,
    }
    say(report)


async def first(token: str, *rest: str) -> None:
    """Direct and proxied in turns, each on its kept connection."""
    loop = asyncio.get_running_loop()
    *addresses, count = rest
    clients = []
    for host, port in (addresses[:2], addresses[2:]):
        _, client = await loop.create_connection(Client, host, int(port))
        clients.append(client)
    data = request(token, 1)
    times: list[list[float]] = [[], []]
    for pair in range(int(count) + 1):
        for number in (0, 1) if pair % 2 else (1, 0):
            client = clients[number]
            client.ask(data)
            await client.has_answer.wait()
            if pair:  # the first one opens the proxy's own connection
                times[number].append(client.answered_at - client.asked_at)
            await asyncio.sleep(0.005)
    added = sorted(through - direct for direct, through in zip(*times, strict=True))
    direct, through = (sorted(column) for column in times)
    middle, tail = len(added) // 2, len(added) * 99 // 100
    say(
        {
            "pairs": len(added),
            "direct_p50_ms": direct[middle] * 1e3,
            "proxied_p50_ms": through[middle] * 1e3,
            "added_p50_ms": added[middle] * 1e3,
            "added_p99_ms": added[tail] * 1e3,
        }
    )


async def hold(host: str, port: str, token: str, count: str, kind: str) -> None:
    loop = asyncio.get_running_loop()
    data = request(token, 0 if kind == "streams" else None)
    held: list[Client] = []

    async def open_some(number: int) -> None:
        for _ in range(number):
            _, client = await loop.create_connection(Client, host, int(port))
            held.append(client)
            client.ask(data)
            await client.has_answer.wait()

    total = int(count)
    bounds = [total * part // OPENING for part in range(OPENING + 1)]
    async with asyncio.TaskGroup() as group:
        for low, high in pairwise(bounds):
            group.create_task(open_some(high - low))
    say({"open": len(held), "head_bytes": data.index(b"\r\n\r\n") + 4})
    await loop.run_in_executor(None, sys.stdin.read)
    closed = sum(client.transport.is_closing() for client in held)
    for client in held:
        client.transport.close()
    say({"closed_by_server": closed})


def say(report: dict[str, object]) -> None:
    print(json.dumps(report), flush=True)


gc.disable()
COMMANDS: dict[str, Callable[..., Coroutine[None, None, None]]] = {
    "paced": paced,
    "first": first,
    "hold": hold,
}
uvloop.run(COMMANDS[sys.argv[1]](*sys.argv[2:]))
