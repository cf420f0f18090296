"""Streams that break, for every dialect, every framing and at every byte: no end is made up."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import anthropic
import msgspec
import openai
import pytest

from llm_proxy.providers import Timeouts

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Client, Gate, Peer, StartGate

pytestmark = pytest.mark.anyio

KIND = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = KIND + b"Transfer-Encoding: chunked\r\n\r\n"
EVENTS = b'event: a\ndata: {"x": 1}\n\n: comment\n\ndata: 2\r\n\r\n'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def asked(gate: Gate) -> tuple[Client, Peer]:
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    return client, peer


def unframed(chunks: bytes) -> tuple[bytes, bool]:
    """The payload, and whether it ended with a last chunk."""
    payload = b""
    while chunks:
        size, _, rest = chunks.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            assert rest == b"\r\n"
            return payload, True
        payload += rest[:length]
        assert rest[length : length + 2] == b"\r\n"
        chunks = rest[length + 2 :]
    return payload, False


@pytest.mark.parametrize("cut", range(len(EVENTS) + 1))
async def test_event_stream_cut_anywhere_says_so_between_events(gate: Gate, cut: int) -> None:
    client, peer = await asked(gate)
    await peer.send(CHUNKED)
    if cut:
        await peer.send(chunk(EVENTS[:cut]))
    await client.read_until(b"\r\n\r\n")
    peer.close()
    payload, is_complete = unframed(await client.read_to_end())
    assert not is_complete
    begun = EVENTS[:cut]
    assert payload.startswith(begun)
    error = payload.removeprefix(begun)
    assert bool(error) is (not begun or begun.endswith((b"\n\n", b"\r\n\r\n")))
    if error:
        assert re.fullmatch(rb"event: error\ndata: \{.*\}\n\n", error)
    record = await gate.records.next()
    assert (record.status_code, record.error_code) == (200, "upstream_broken")
    assert record.truncated and record.stream
    assert (record.body, record.response_bytes) == (begun, cut)
    assert len(gate.records.all) == 1


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"application/json", b'{"choices": [{"message": {"content": "half'),
        (b"application/x-ndjson", b'{"a": 1}\n\n'),
        (b"text/plain", b"text\n\n"),
        (b"audio/mpeg", b"\xff\xfb\x90\x00\n\n"),
    ],
)
@pytest.mark.parametrize("how", ["close", "reset", "stop"])
async def test_other_bodies_are_aborted_without_a_word(
    start_gate: StartGate, kind: bytes, body: bytes, how: str
) -> None:
    gate = await start_gate(timeouts=Timeouts(idle=20.0))
    client, peer = await asked(gate)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: " + kind
    await peer.send(head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(body))
    await client.read_until(b"\r\n\r\n")
    assert await client.chunk() == body
    if how == "stop":
        gate.timers.advance(21)
        await peer.read_to_end()  # is hung up on
    else:
        getattr(peer, how)()
    assert await client.read_to_end() == b""
    record = await gate.records.next()
    code = "upstream_timeout" if how == "stop" else "upstream_broken"
    assert (record.status_code, record.error_code, record.truncated) == (200, code, True)


@pytest.mark.parametrize("encoding", [b"gzip", b"br", b"deflate", b"zstd"])
async def test_compressed_streams_are_aborted_without_a_word(gate: Gate, encoding: bytes) -> None:
    client, peer = await asked(gate)
    head = KIND + b"Content-Encoding: " + encoding
    await peer.send(head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"\x1f\n\n"))
    await client.read_until(b"\r\n\r\n")
    assert await client.chunk() == b"\x1f\n\n"
    peer.close()
    assert await client.read_to_end() == b""
    assert (await gate.records.next()).truncated


async def test_http_10_client_is_reset_after_the_error_event(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(body=b"{}").replace(b"HTTP/1.1", b"HTTP/1.0"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.send(CHUNKED + chunk(b"data: 1\n\n"))
    await client.read_until(b"data: 1\n\n")
    peer.reset()
    with pytest.raises(ConnectionResetError):
        await client.read_to_end()
    assert (await gate.records.next()).truncated


async def test_broken_pipelined_stream_answers_none_of_those_behind_it(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(body=b"1") + gate.request(body=b"2"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.send(CHUNKED + chunk(b"data: 1\n\n"))
    await client.read_until(b"\r\n\r\n")
    peer.close()
    payload, is_complete = unframed(await client.read_to_end())
    assert (payload.count(b"event: error"), is_complete) == (1, False)
    assert not gate.openai.has_news()
    assert len(gate.records.all) == 1


# What the official clients make of it, for each of their kinds of stream.

CHAT = {
    "id": "1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "delta": {"content": "Hel"}, "finish_reason": None}],
}
COMPLETION = {"id": "1", "object": "text_completion", "created": 1, "model": "m", "choices": []}
RESPONSE = {
    "id": "1",
    "object": "response",
    "created_at": 1,
    "status": "in_progress",
    "model": "m",
    "output": [],
}
CREATED = {"type": "response.created", "response": RESPONSE, "sequence_number": 0}
MESSAGE = {
    "type": "message_start",
    "message": {
        "id": "1",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "m",
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    },
}


async def chat(sdk: openai.AsyncOpenAI) -> Any:
    return await sdk.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "hi"}], stream=True
    )


async def completion(sdk: openai.AsyncOpenAI) -> Any:
    return await sdk.completions.create(model="m", prompt="hi", stream=True)


async def response(sdk: openai.AsyncOpenAI) -> Any:
    return await sdk.responses.create(model="m", input="hi", stream=True)


def named(name: str, event: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(event))


def plain(event: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(event)


@pytest.mark.parametrize("how", ["close", "stop"])
@pytest.mark.parametrize(
    ("ask", "event"),
    [
        (chat, plain(CHAT)),
        (completion, plain(COMPLETION)),
        (response, named("response.created", CREATED)),
    ],
    ids=["chat", "completion", "response"],
)
async def test_openai_client_raises(
    start_gate: StartGate,
    ask: Callable[[openai.AsyncOpenAI], Awaitable[Any]],
    event: bytes,
    how: str,
) -> None:
    gate = await start_gate(allowed_endpoints=("/*",), timeouts=Timeouts(idle=20.0))
    async with openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{gate.port}/v1", api_key=gate.token.decode(), max_retries=0
    ) as sdk:
        asking = asyncio.ensure_future(ask(sdk))
        peer = await gate.openai.accept()
        await peer.request()
        await peer.send(CHUNKED + chunk(event))
        events = await asking
        await anext(events)
        peer.close() if how == "close" else gate.timers.advance(21)
        with pytest.raises(openai.APIError) as caught:
            await anext(events)
        await events.close()
    code = "upstream_broken" if how == "close" else "upstream_timeout"
    assert caught.value.code == code
    assert (await gate.records.next()).error_code == code


@pytest.mark.parametrize("how", ["close", "stop"])
async def test_anthropic_client_raises(start_gate: StartGate, how: str) -> None:
    gate = await start_gate(timeouts=Timeouts(idle=20.0))
    async with anthropic.AsyncAnthropic(
        base_url=f"http://127.0.0.1:{gate.port}/anthropic",
        api_key=gate.token.decode(),
        max_retries=0,
    ) as sdk:

        async def read() -> None:
            async with sdk.messages.stream(
                model="m", max_tokens=10, messages=[{"role": "user", "content": "hi"}]
            ) as events:
                async for _ in events:
                    has_begun.set()

        has_begun = asyncio.Event()
        reading = asyncio.create_task(read())
        peer = await gate.anthropic.accept()
        await peer.request()
        await peer.send(CHUNKED + chunk(named("message_start", MESSAGE)))
        async with asyncio.timeout(30):
            await has_begun.wait()
        peer.close() if how == "close" else gate.timers.advance(301)
        with pytest.raises(anthropic.APIStatusError) as caught:
            await reading
    assert isinstance(caught.value.body, dict)
    code = "upstream_broken" if how == "close" else "upstream_timeout"
    assert caught.value.body["error"]["code"] == code
    assert caught.value.body["error"]["type"] == "api_error" or how == "stop"
