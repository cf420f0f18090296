from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from llm_proxy.benchmark.mock_options import MockOptions
from llm_proxy.benchmark.mock_upstream import MockServer
from llm_proxy.benchmark.plan import Closed
from llm_proxy.benchmark.samples import (
    BROKEN_STREAM,
    CANCELLED,
    CLIENT_ERROR,
    CONNECT,
    CUT,
    NONE,
    OK,
    RESET,
    SERVER_ERROR,
    TIMEOUT,
)
from tests.benchmark.generating import STREAM, Run, generate, plan, target

pytestmark = pytest.mark.anyio
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def ask(mock: MockServer, *headers: tuple[str, str], **options: Any) -> Run:
    requests = options.pop("requests", 1)
    assert isinstance(requests, int)
    wanted = plan(
        Closed(concurrency=1, requests=requests), target(mock.address), headers=headers, **options
    )
    return await generate(wanted)


@pytest.mark.parametrize(
    ("headers", "outcome", "status"),
    [
        ((("X-Mock-Status", "429"),), CLIENT_ERROR, 429),
        ((("X-Mock-Status", "503"),), SERVER_ERROR, 503),
        ((("X-Mock-Cut", "head"),), RESET, 0),
        ((("X-Mock-Cut", "5"),), CUT, 200),
    ],
)
async def test_every_end_has_its_outcome(
    mock: MockServer, headers: tuple[tuple[str, str], ...], outcome: int, status: int
) -> None:
    run = await ask(mock, *headers)
    assert run.column("outcome") == [outcome]
    assert run.column("status") == [status]
    assert run.column("digest") == [0]


async def test_silence_is_a_timeout(mock: MockServer) -> None:
    run = await ask(mock, ("X-Mock-Delay", "30s"), timeout_s=0.1)
    assert run.column("outcome") == [TIMEOUT]


async def test_a_connection_that_we_have_no_file_for_is_none_that_broke(mock: MockServer) -> None:
    wanted = plan(Closed(concurrency=1, requests=1), target(mock.address))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        run = await generate(wanted)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert run.column("outcome") == [CONNECT]


async def test_a_plain_answer_has_bytes_but_no_tokens(mock: MockServer) -> None:
    run = await ask(mock)
    assert run.column("outcome") == [OK]
    assert run.column("received")[0] > 100
    assert 0 <= run.column("first_byte")[0] <= run.column("service")[0]
    assert run.column("first_token") == [NONE] and run.column("tokens") == [0]
    assert run.column("proxy") == [NONE]


async def test_a_stream_is_measured(mock: MockServer) -> None:
    run = await ask(mock, ("X-Mock-Tokens", "12"), bodies=(STREAM,), is_stream=True)
    assert run.column("outcome") == [OK]
    assert run.column("tokens") == [12]
    first, second, service = (
        run.column(name)[0] for name in ("first_token", "second_token", "service")
    )
    assert 0 < first <= second <= service
    assert sum(len(frame.gaps.proxied) for frame in run.frames) == 11


async def test_a_cut_stream_is_told_from_a_broken_one(mock: MockServer) -> None:
    cut = await ask(mock, ("X-Mock-Cut", "3"), bodies=(STREAM,), is_stream=True)
    assert cut.column("outcome") == [CUT]


@pytest.mark.parametrize("mock_options", [MockOptions(tokens_per_second=200)], indirect=True)
async def test_cancelled_streams_are_hung_up_on(mock: MockServer) -> None:
    run = await ask(
        mock,
        ("X-Mock-Tokens", "200"),
        bodies=(STREAM,),
        is_stream=True,
        cancel_rate=1.0,
        requests=3,
    )
    assert run.column("outcome") == [CANCELLED] * 3
    # By lot after 20 at most, and what a busy machine lets come in one piece.
    assert all(1 <= tokens < 150 for tokens in run.column("tokens"))


@pytest.mark.parametrize("mock_options", [MockOptions(tokens_per_second=50)], indirect=True)
async def test_short_streams_are_hung_up_on_before_they_end(mock: MockServer) -> None:
    run = await ask(
        mock,
        ("X-Mock-Tokens", "3"),
        bodies=(STREAM,),
        is_stream=True,
        cancel_rate=1.0,
        requests=12,
    )
    # By lot it would be after some ten of them; only the first ones needn't know better.
    assert run.column("outcome").count(CANCELLED) >= 6


class Scripted:
    """A server of one handler for all its connections."""

    def __init__(self) -> None:
        self.connections = 0
        self._server: asyncio.Server | None = None
        self.address = ""

    async def serve(self, handle: Serve) -> None:
        async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            with contextlib.suppress(asyncio.IncompleteReadError):
                await handle(reader, writer)
            writer.close()

        self._server = await asyncio.start_server(count, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()


@pytest.fixture
async def scripted(anyio_backend: object) -> AsyncIterator[Scripted]:
    server = Scripted()
    yield server
    await server.close()


async def _read_request(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    await reader.readexactly(length)


async def test_a_kept_connection_that_was_closed_is_no_error(scripted: Scripted) -> None:
    async def one_each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await _read_request(reader)  # and hangs up without an answer

    await scripted.serve(one_each)
    run = await generate(plan(Closed(concurrency=1, requests=3), target(scripted.address)))
    assert run.column("outcome") == [OK] * 3
    assert run.figures.reconnects == 2
    assert scripted.connections == 3


async def test_a_stream_that_ends_in_good_order_without_its_last_event_is_broken(
    scripted: Scripted,
) -> None:
    async def no_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _read_request(reader)
        event = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n%b"
            % (len(event), event)
        )
        await writer.drain()

    await scripted.serve(no_end)
    wanted = plan(Closed(concurrency=1, requests=1), target(scripted.address), bodies=(STREAM,))
    run = await generate(wanted)
    assert run.column("outcome") == [BROKEN_STREAM]


async def test_what_the_proxy_says_of_itself_is_noted(scripted: Scripted) -> None:
    async def timed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _read_request(reader)
        writer.write(
            b"HTTP/1.1 200 OK\r\nServer-Timing: proxy;dur=0.5, upstream;dur=2\r\n"
            b"Content-Length: 0\r\n\r\n"
        )
        await writer.drain()

    await scripted.serve(timed)
    run = await generate(plan(Closed(concurrency=1, requests=1), target(scripted.address)))
    assert (run.column("proxy"), run.column("upstream")) == ([5_000], [20_000])
