from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import random
import time
import zlib
from typing import Any

import brotli
import httpx
import pytest

from llm_proxy.benchmark.mock_options import Freeze, MockOptions
from llm_proxy.benchmark.mock_upstream import MockServer

pytestmark = pytest.mark.anyio

CHAT: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
STREAM = {**CHAT, "stream": True}


async def _raw(
    mock: MockServer, body: dict[str, Any], *headers: str, version: str = "1.1"
) -> bytes:
    """All that comes back until the mock closes the connection."""
    host, port = mock.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    encoded = json.dumps(body).encode()
    lines = [
        f"POST /v1/chat/completions HTTP/{version}",
        "Host: mock",
        "Authorization: Bearer sk-x",
        f"Content-Length: {len(encoded)}",
        *headers,
    ]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + encoded)
    try:
        return await reader.read(-1)
    finally:
        writer.close()
        await writer.wait_closed()


async def _whole_body(mock: MockServer, body: dict[str, Any]) -> bytes:
    answer = await _raw(mock, body, "Connection: close")
    return answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("size", [0, 1, 100])
async def test_a_plain_answer_is_cut_after_exactly_so_many_bytes(
    mock: MockServer, size: int
) -> None:
    whole = await _whole_body(mock, CHAT)
    head, _, body = (await _raw(mock, CHAT, f"X-Mock-Cut: {size}")).partition(b"\r\n\r\n")
    assert f"content-length: {len(whole)}".encode() in head
    assert b"connection: close" not in head
    assert body == whole[:size]


async def test_a_cut_beyond_the_body_cuts_nothing(mock: MockServer) -> None:
    whole = await _whole_body(mock, CHAT)
    answer = await _raw(mock, CHAT, "Connection: close", f"X-Mock-Cut: {len(whole)}")
    assert answer.endswith(whole)


@pytest.mark.parametrize("events", [0, 1, 5])
async def test_a_stream_is_cut_after_so_many_events_without_an_end(
    mock: MockServer, events: int
) -> None:
    whole = await _whole_body(mock, STREAM)
    head, _, body = (await _raw(mock, STREAM, f"X-Mock-Cut: {events}")).partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert body.count(b"data: ") == events
    assert whole.startswith(body)
    assert not body.endswith(b"0\r\n\r\n")


async def test_a_stream_cut_after_its_last_event_lacks_only_the_end_of_the_chunks(
    mock: MockServer,
) -> None:
    whole = await _whole_body(mock, STREAM)
    cut = await _raw(mock, STREAM, f"X-Mock-Cut: {whole.count(b'data: ')}")
    assert cut.partition(b"\r\n\r\n")[2] + b"0\r\n\r\n" == whole


async def test_a_cut_before_the_head_sends_nothing(mock: MockServer) -> None:
    assert await _raw(mock, CHAT, "X-Mock-Cut: head") == b""


async def test_each_event_is_a_chunk_of_its_own(mock: MockServer) -> None:
    rest = await _whole_body(mock, STREAM)
    chunks = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        chunks.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    assert chunks.pop() == b""
    assert all(chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") for chunk in chunks)
    assert chunks[-1] == b"data: [DONE]\n\n"


async def test_http_1_0_gets_a_stream_without_chunks(mock: MockServer) -> None:
    head, _, body = (await _raw(mock, STREAM, version="1.0")).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert body.startswith(b"data: ")
    assert body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["plain", "stream"])
@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate"])
async def test_bodies_are_encoded_as_asked(
    mock: MockServer, body: dict[str, Any], encoding: str
) -> None:
    async with httpx.AsyncClient(base_url=f"http://{mock.address}/v1") as client:
        key = {"Authorization": "Bearer sk-x"}
        plain = await client.post("/chat/completions", json=body, headers=key)
        asked = {**key, "X-Mock-Encoding": encoding}
        async with client.stream("POST", "/chat/completions", json=body, headers=asked) as answer:
            raw = b"".join([piece async for piece in answer.aiter_raw()])
    assert answer.headers["content-encoding"] == encoding
    decode = {"gzip": gzip.decompress, "br": brotli.decompress, "deflate": zlib.decompress}
    assert decode[encoding](raw) == plain.content


async def test_an_encoded_event_can_be_read_when_it_arrives(mock: MockServer) -> None:
    cut = await _raw(mock, STREAM, "X-Mock-Encoding: gzip", "X-Mock-Cut: 2")
    size, _, rest = cut.partition(b"\r\n\r\n")[2].partition(b"\r\n")
    reader = zlib.decompressobj(wbits=31)
    first = reader.decompress(rest[: int(size, 16)])
    assert first.startswith(b"data: ")
    assert first.endswith(b"\n\n")


@pytest.mark.parametrize("mock_options", [MockOptions(tokens_per_second=100)], indirect=True)
async def test_a_paced_stream_keeps_its_pace(mock: MockServer) -> None:
    """20 tokens at 100 a second: none waits for the last, and that isn't before its time."""
    async with httpx.AsyncClient() as client:
        headers = {"Authorization": "Bearer sk-x", "X-Mock-Tokens": "20"}
        url = f"http://{mock.address}/v1/chat/completions"
        begin = time.monotonic()
        async with client.stream("POST", url, json=STREAM, headers=headers) as answer:
            times = [time.monotonic() - begin async for _ in answer.aiter_bytes()]
    assert times[-1] > 0.199
    assert times[-1] - times[0] > 0.1
    assert len(times) > 3


def _differing(left: bytes, right: bytes) -> list[int]:
    assert len(left) == len(right)
    return [i for i, (a, b) in enumerate(zip(left, right, strict=True)) if a != b]


async def test_the_byte_asked_for_is_another(mock: MockServer) -> None:
    whole = await _whole_body(mock, CHAT)
    for number, changed in ((1, [0]), (100, [99]), (len(whole), [len(whole) - 1])):
        answer = await _raw(mock, CHAT, "Connection: close", f"X-Mock-Corrupt: {number}")
        assert _differing(answer[-len(whole) :], whole) == changed


async def test_one_byte_of_the_event_asked_for_is_another(mock: MockServer) -> None:
    whole = await _whole_body(mock, STREAM)
    answer = await _raw(mock, STREAM, "Connection: close", "X-Mock-Corrupt: 3")
    changed = _differing(answer.partition(b"\r\n\r\n")[2], whole)
    assert len(changed) == 1
    assert whole[: changed[0]].count(b"data: ") == 3


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["plain", "stream"])
async def test_what_is_beyond_the_end_is_not_corrupted(
    mock: MockServer, body: dict[str, Any]
) -> None:
    whole = await _whole_body(mock, body)
    answer = await _raw(mock, body, "Connection: close", "X-Mock-Corrupt: 100000")
    assert answer.endswith(whole)


@pytest.mark.parametrize("after", [0, 5])
@pytest.mark.parametrize(
    "mock_options", [MockOptions(), MockOptions(tokens_per_second=1000)], indirect=True
)
async def test_a_stream_stalls_once_after_so_many_events(mock: MockServer, after: int) -> None:
    host, port = mock.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps(STREAM).encode()
    begin = time.monotonic()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: m\r\nAuthorization: Bearer k\r\n"
        b"X-Mock-Tokens: 9\r\nX-Mock-Stall: %d:100ms\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (after, len(body), body)
    )
    await reader.readuntil(b"\r\n\r\n")
    early = [await reader.readuntil(b"\n\n") for _ in range(after)]
    late = await reader.readuntil(b"\n\n")
    assert time.monotonic() - begin > 0.09
    rest = await reader.read(-1)
    assert (b"".join(early) + late + rest).count(b"data: ") == 12
    writer.close()
    await writer.wait_closed()


_OFTEN = Freeze(every_s=0.11, for_s=0.1)


@pytest.mark.parametrize("mock_options", [MockOptions(freeze=_OFTEN)], indirect=True)
@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["plain", "stream"])
async def test_a_frozen_mock_sends_no_head_until_it_thaws(
    mock: MockServer, body: dict[str, Any]
) -> None:
    async with asyncio.timeout(20):
        while not mock.waits.frozen_s():
            await asyncio.sleep(0.001)
        begin, left = time.monotonic(), mock.waits.frozen_s()
        assert b"HTTP/1.1 200 OK" in await _raw(mock, body, "Connection: close")
    assert time.monotonic() - begin > left - 0.01


@pytest.mark.parametrize(
    "mock_options", [MockOptions(freeze=_OFTEN, tokens_per_second=100)], indirect=True
)
async def test_a_freeze_interrupts_a_stream_that_is_under_way(mock: MockServer) -> None:
    async with httpx.AsyncClient() as client:
        headers = {"Authorization": "Bearer sk-x", "X-Mock-Tokens": "20"}
        url = f"http://{mock.address}/v1/chat/completions"
        async with client.stream("POST", url, json=STREAM, headers=headers) as answer:
            times = [time.monotonic() async for _ in answer.aiter_bytes()]
    assert max(b - a for a, b in itertools.pairwise(times)) > 0.05


@pytest.mark.parametrize("mock_options", [MockOptions(latency_s=0.1)], indirect=True)
async def test_the_head_comes_after_the_latency(mock: MockServer) -> None:
    begin = time.monotonic()
    assert await _raw(mock, CHAT, "Connection: close")
    assert time.monotonic() - begin > 0.099


@pytest.mark.parametrize("mock_options", [MockOptions(jitter_s=0.05)], indirect=True)
async def test_jitter_lets_a_head_wait_as_long_as_was_drawn(mock: MockServer) -> None:
    # As the server draws: the n-th answer waits as long each time it is started.
    expected = random.Random(0).uniform(0, 0.05)
    begin = time.monotonic()
    assert await _raw(mock, CHAT, "Connection: close")
    assert time.monotonic() - begin > expected - 0.001


@pytest.mark.parametrize("mock_options", [MockOptions(latency_s=60)], indirect=True)
async def test_the_delay_asked_for_replaces_the_latency(mock: MockServer) -> None:
    begin = time.monotonic()
    assert await _raw(mock, CHAT, "Connection: close", "X-Mock-Delay: 50ms")
    assert 0.049 < time.monotonic() - begin < 30


@pytest.mark.parametrize("status", [204, 304])
async def test_statuses_without_a_body_have_none(mock: MockServer, status: int) -> None:
    for body in (CHAT, STREAM):
        answer = await _raw(mock, body, "Connection: close", f"X-Mock-Status: {status}")
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert answer.endswith(b"\r\n\r\n")
        assert b"chunked" not in answer


async def test_an_unheard_of_status_has_a_phrase_too(mock: MockServer) -> None:
    answer = await _raw(mock, CHAT, "Connection: close", "X-Mock-Status: 599")
    assert answer.startswith(b"HTTP/1.1 599 Unknown\r\n")


async def test_a_stream_waits_for_a_slow_reader_and_then_goes_on(mock: MockServer) -> None:
    host, port = mock.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    # Events of 10 KB: 1500 of them are more than the sockets' buffers hold.
    body = json.dumps({**STREAM, "model": "m" * 10_000}).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: m\r\nAuthorization: Bearer k\r\n"
        b"X-Mock-Tokens: 1500\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
        % (len(body), body)
    )
    async with asyncio.timeout(20):
        while not any(connection.is_write_paused for connection in mock.connections):
            await asyncio.sleep(0.001)
        answer = await reader.read(-1)
    assert answer.count(b"data: ") == 1503
    assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    writer.close()
    await writer.wait_closed()


async def test_a_client_that_leaves_a_stream_is_forgotten(mock: MockServer) -> None:
    host, port = mock.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps(STREAM).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: m\r\nAuthorization: Bearer k\r\n"
        b"X-Mock-Tokens: 1000000\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    writer.transport.abort()
    async with asyncio.timeout(30):
        while mock.connections:
            await asyncio.sleep(0.001)
