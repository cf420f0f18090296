from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from llm_proxy.benchmark.mock_options import MockOptions
from llm_proxy.benchmark.mock_upstream import MockServer

pytestmark = pytest.mark.anyio

MODELS = b"GET /v1/models HTTP/1.1\r\nHost: m\r\nAuthorization: Bearer k\r\n\r\n"
BODY = b'{"model":"gpt-4o","messages":[{"role":"user","content":"Hello"}]}'
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: m\r\nAuthorization: Bearer k\r\n"


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 30)

    async def answer(self) -> tuple[int, bytes]:
        """The status and the body of an answer with a length."""
        head = (await self.head()).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(head.split()[1]), await self.reader.readexactly(length)

    async def rest(self) -> bytes:
        return await asyncio.wait_for(self.reader.read(-1), 30)


@asynccontextmanager
async def _connect(mock: MockServer) -> AsyncIterator[Client]:
    host, port = mock.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_connection_serves_one_request_after_the_other(mock: MockServer) -> None:
    async with _connect(mock) as client:
        for _ in range(3):
            client.send(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY))
            status, body = await client.answer()
            assert status == 200
            assert json.loads(body)["object"] == "chat.completion"
    assert len(mock.requests) == 3


async def test_pipelined_requests_are_answered_in_order(mock: MockServer) -> None:
    slow = MODELS.replace(b"\r\n\r\n", b"\r\nX-Mock-Delay: 50ms\r\n\r\n")
    async with _connect(mock) as client:
        client.send(slow + MODELS.replace(b"/v1/models", b"/nowhere") + MODELS)
        assert [(await client.answer())[0] for _ in range(3)] == [200, 404, 200]


async def test_requests_piled_up_behind_a_slow_answer_stop_the_reading(mock: MockServer) -> None:
    slow = MODELS.replace(b"\r\n\r\n", b"\r\nX-Mock-Delay: 300ms\r\n\r\n")
    large = MODELS.replace(b"\r\n\r\n", b"\r\nX: " + b"x" * 10_000 + b"\r\n\r\n")
    async with _connect(mock) as client:
        client.send(slow + large * 100)
        async with asyncio.timeout(20):
            while not any(connection.is_read_paused for connection in mock.connections):
                await asyncio.sleep(0.001)
        assert len(mock.requests) < 100
        for _ in range(101):
            assert (await client.answer())[0] == 200


async def test_no_answer_is_made_for_a_client_that_does_not_read(mock: MockServer) -> None:
    long = b"X-Mock-Tokens: 500000\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
    host, port = mock.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    client = Client(reader, writer)
    client.send((HEAD + long) * 5)  # answers of 3 MB
    async with asyncio.timeout(20):
        while not any(connection.is_write_paused for connection in mock.connections):
            await asyncio.sleep(0.001)
        first = await client.answer()
        for _ in range(4):
            assert await client.answer() == first
    writer.close()
    await writer.wait_closed()


async def test_a_request_cut_anywhere_is_read_the_same(mock: MockServer) -> None:
    request = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
    async with _connect(mock) as client:
        client.send(request)
        whole = await client.answer()
        for start in range(0, len(request), 7):
            client.send(request[start : start + 7])
            await asyncio.sleep(0)
        assert await client.answer() == whole
    first, second = mock.requests
    assert first == second


async def test_chunked_bodies_are_read_and_their_trailers_ignored(mock: MockServer) -> None:
    async with _connect(mock) as client:
        client.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        client.send(b"%x\r\n%b\r\n" % (10, BODY[:10]))
        client.send(b"%x;ext=1\r\n%b\r\n" % (len(BODY) - 10, BODY[10:]))
        client.send(b"0\r\nX-Trailer: late\r\n\r\n")
        assert (await client.answer())[0] == 200
    (received,) = mock.requests
    assert received.body_sha256 == hashlib.sha256(BODY).hexdigest()
    assert b"X-Trailer" not in dict(received.headers)


async def test_a_body_is_waited_for_with_100_continue(mock: MockServer) -> None:
    async with _connect(mock) as client:
        client.send(HEAD + b"Expect: 100-Continue\r\nContent-Length: %d\r\n\r\n" % len(BODY))
        assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(BODY)
        assert (await client.answer())[0] == 200


async def test_100_continue_comes_after_the_answer_before_it(mock: MockServer) -> None:
    slow = MODELS.replace(b"\r\n\r\n", b"\r\nX-Mock-Delay: 50ms\r\n\r\n")
    async with _connect(mock) as client:
        client.send(slow + HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert (await client.answer())[0] == 200
        assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"


async def test_a_body_sent_at_once_needs_no_100_continue(mock: MockServer) -> None:
    request = HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    slow = MODELS.replace(b"\r\n\r\n", b"\r\nX-Mock-Delay: 50ms\r\n\r\n")
    async with _connect(mock) as client:
        client.send(slow + request + BODY)
        assert (await client.answer())[0] == 200
        assert (await client.answer())[0] == 200


async def test_head_has_the_head_of_get_and_no_body(mock: MockServer) -> None:
    async with _connect(mock) as client:
        client.send(MODELS)
        get = await client.head()
        await client.reader.readexactly(int(get.partition(b"content-length: ")[2].split()[0]))
        client.send(MODELS.replace(b"GET", b"HEAD") + MODELS)
        head = await client.head()
        assert [line for line in head.split(b"\r\n") if b"request-id" not in line] == [
            line for line in get.split(b"\r\n") if b"request-id" not in line
        ]
        assert (await client.answer())[0] == 200


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_the_connection_closes_when_the_client_wants_it(
    mock: MockServer, version: bytes
) -> None:
    request = MODELS.replace(b"1.1", version)
    if version == b"1.1":
        request = request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    async with _connect(mock) as client:
        client.send(request + MODELS)
        assert (await client.rest()).count(b"HTTP/1.1 ") == 1


async def test_http_1_0_is_told_that_its_connection_is_kept(mock: MockServer) -> None:
    request = MODELS.replace(b"1.1\r\n", b"1.0\r\nConnection: keep-alive\r\n")
    async with _connect(mock) as client:
        client.send(request)
        head = await client.head()
        assert b"connection: keep-alive\r\n" in head
        await client.reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
        client.send(MODELS)
        assert b"connection:" not in await client.head()


@pytest.mark.parametrize(
    "request_line",
    [b"CONNECT example.com:443 HTTP/1.1", b"GET /v1/models HTTP/1.1\r\nUpgrade: websocket"],
)
async def test_an_upgrade_is_answered_as_a_request_and_the_connection_closed(
    mock: MockServer, request_line: bytes
) -> None:
    async with _connect(mock) as client:
        client.send(request_line + b"\r\nHost: m\r\nConnection: upgrade\r\n\r\nGARBAGE")
        answer = await client.rest()
        assert b"connection: close" in answer
        assert answer.split()[1] in (b"401", b"404")


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n\r\n", HEAD + b"Content-Length: x\r\n\r\n"],
)
async def test_what_is_not_http_is_400_and_the_end(mock: MockServer, garbage: bytes) -> None:
    async with _connect(mock) as client:
        client.send(garbage)
        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"not an HTTP/1.1 request" in answer
    assert not mock.requests


@pytest.mark.parametrize("mock_options", [MockOptions(latency_s=0.05)], indirect=True)
async def test_garbage_after_a_request_does_not_cost_its_answer(mock: MockServer) -> None:
    async with _connect(mock) as client:
        client.send(MODELS + b"\x00\x01 garbage\r\n\r\n")
        assert (await client.answer())[0] == 200
        assert (await client.rest()).startswith(b"HTTP/1.1 400 ")


async def test_a_head_without_end_is_431(mock: MockServer) -> None:
    async with _connect(mock) as client:
        client.send(b"GET / HTTP/1.1\r\nX: " + b"a" * 1_200_000)
        assert (await client.rest()).startswith(b"HTTP/1.1 431 ")


async def test_headers_are_remembered_as_they_were_sent(mock: MockServer) -> None:
    async with _connect(mock) as client:
        client.send(b"GET /v1/models?x=%41&y HTTP/1.1\r\nhOST: m\r\nX-A: 1\r\nx-a:  2 \r\n\r\n")
        assert (await client.answer())[0] == 401
    (received,) = mock.requests
    assert received.method == "GET"
    assert received.target == b"/v1/models?x=%41&y"
    assert received.headers == [(b"hOST", b"m"), (b"X-A", b"1"), (b"x-a", b"2")]


async def test_an_idle_connection_is_told_from_a_busy_one(mock: MockServer) -> None:
    slow = MODELS.replace(b"\r\n\r\n", b"\r\nX-Mock-Delay: 1s\r\n\r\n")
    async with _connect(mock) as client:
        client.send(MODELS)
        await client.answer()
        (connection,) = mock.connections
        now = asyncio.get_running_loop().time()
        assert connection.is_idle_since(now + 1)
        assert not connection.is_idle_since(now - 60)
        client.send(slow)
        while len(mock.requests) < 2:
            await asyncio.sleep(0.001)
        assert not connection.is_idle_since(now + 60)
