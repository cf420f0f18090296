from __future__ import annotations

import asyncio

import pytest

from llm_proxy.benchmark.mock_faults import NO_FAULTS
from llm_proxy.benchmark.mock_hang_ups import MOST_KEYS, HangUps
from llm_proxy.benchmark.mock_options import MockOptions
from llm_proxy.benchmark.mock_request import Request
from llm_proxy.benchmark.mock_upstream import MockServer
from tests.benchmark.generating import STREAM

pytestmark = pytest.mark.anyio


def request(key: str, *, header: str = "authorization") -> Request:
    value = f"Bearer {key}" if header == "authorization" else key
    path = b"/v1/chat/completions" if header == "authorization" else b"/v1/messages"
    return Request("POST", path, [(header.encode(), value.encode())])


def told(hang_ups: HangUps, key: str) -> bytes:
    return hang_ups.tell(request(key), NO_FAULTS).body


def test_hang_ups_are_told_to_whoever_has_the_same_key() -> None:
    hang_ups = HangUps()
    for one in (request("a"), request("a", header="x-api-key"), request("b")):
        hang_ups.note(one)
    assert [told(hang_ups, key) for key in "abc"] == [
        b'{"hang_ups":2}',
        b'{"hang_ups":1}',
        b'{"hang_ups":0}',
    ]


def test_no_more_keys_are_kept_than_so_many() -> None:
    hang_ups = HangUps()
    for number in range(MOST_KEYS + 1):
        hang_ups.note(request(f"key-{number}"))
    assert told(hang_ups, "key-0") == b'{"hang_ups":0}'
    assert told(hang_ups, f"key-{MOST_KEYS}") == b'{"hang_ups":1}'


async def ask(mock: MockServer, text: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = mock.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(text)
    return reader, writer


def chat(body: bytes) -> bytes:
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: mock\r\nauthorization: Bearer k\r\n"
        b"content-length: %d\r\n\r\n%b" % (len(body), body)
    )


async def seen(mock: MockServer) -> bytes:
    reader, writer = await ask(
        mock, b"GET /mock/stats HTTP/1.0\r\nhost: mock\r\nauthorization: Bearer k\r\n\r\n"
    )
    body = (await reader.read()).partition(b"\r\n\r\n")[2]
    writer.close()
    await writer.wait_closed()
    return body


@pytest.mark.parametrize("mock_options", [MockOptions(tokens_per_second=5)], indirect=True)
async def test_a_client_that_leaves_within_its_stream_is_counted(mock: MockServer) -> None:
    reader, writer = await ask(mock, chat(STREAM))
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    writer.transport.abort()
    async with asyncio.timeout(30):
        while mock.connections:
            await asyncio.sleep(0.001)
    assert await seen(mock) == b'{"hang_ups":1}'


async def test_a_client_that_leaves_after_its_answer_is_not_counted(mock: MockServer) -> None:
    reader, writer = await ask(mock, chat(b'{"model":"m","messages":[]}'))
    await reader.readuntil(b"}")
    writer.transport.abort()
    async with asyncio.timeout(30):
        while mock.connections:
            await asyncio.sleep(0.001)
    assert await seen(mock) == b'{"hang_ups":0}'


@pytest.mark.parametrize("mock_options", [MockOptions(latency_s=60)], indirect=True)
async def test_an_answer_that_the_mock_breaks_off_itself_is_no_hang_up(mock: MockServer) -> None:
    _, writer = await ask(mock, chat(b"{}"))
    async with asyncio.timeout(30):
        while not mock.requests:
            await asyncio.sleep(0.001)
    (connection,) = mock.connections
    connection.abort()
    async with asyncio.timeout(30):
        while mock.connections:
            await asyncio.sleep(0.001)
    writer.close()
    answer = mock.service.hang_ups.tell(request("k"), NO_FAULTS)
    assert answer.body == b'{"hang_ups":0}'
