"""The end of a broken answer is never made to look like a clean one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anthropic
import msgspec
import openai
import pytest

from llm_proxy.providers import Timeouts

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Client, Gate, Peer, StartGate

pytestmark = pytest.mark.anyio

SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def stream(gate: Gate, *pieces: bytes, head: bytes = SSE + CHUNKED) -> tuple[Client, Peer]:
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.send(head)
    await client.read_until(b"\r\n\r\n")
    for piece in pieces:
        await peer.send(chunk(piece) if head.endswith(CHUNKED) else piece)
        if b"Content-Length" in head:
            await client.read(len(piece))
        else:
            assert await client.chunk() == piece
    return client, peer


def error_in(event: bytes) -> dict[str, Any]:
    assert event.startswith(b"event: error\ndata: ")
    assert event.endswith(b"\n\n")
    envelope = msgspec.json.decode(event.split(b"data: ")[1], type=dict[str, Any])
    assert envelope["type"] == "error"
    error: dict[str, Any] = envelope["error"]
    return error


async def only_record_is_truncated(gate: Gate, code: str = "upstream_broken") -> None:
    record = await gate.records.next()
    assert (record.status_code, record.truncated, record.error_code) == (200, True, code)
    assert len(gate.records.all) == 1


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b"data: 1\n\n"],
        [b"data: 1\r\n\r\n"],
        [b"data: 1\n", b"\n"],
        [b"data: 1\r\n", b"\r", b"\n"],
    ],
)
async def test_broken_sse_gets_an_error_event_between_events(
    gate: Gate, pieces: list[bytes], how: str
) -> None:
    client, peer = await stream(gate, *pieces)
    getattr(peer, how)()
    error = error_in(await client.chunk())
    assert error["code"] == "upstream_broken"
    assert error["type"] == "api_error"
    assert await client.is_left()  # without a last chunk
    await only_record_is_truncated(gate)


async def test_type_of_a_stream_may_be_written_in_capitals(gate: Gate) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: Text/Event-Stream\r\n" + CHUNKED
    client, peer = await stream(gate, b"data: 1\n\n", head=head)
    peer.close()
    assert error_in(await client.chunk())["code"] == "upstream_broken"


async def test_broken_sse_gets_no_event_in_the_middle_of_one(gate: Gate) -> None:
    client, peer = await stream(gate, b"data: 1\n\n", b'data: {"half')
    peer.close()
    assert await client.is_left()  # without a last chunk
    await only_record_is_truncated(gate)


async def test_compressed_sse_gets_no_event_in_plain_text(gate: Gate) -> None:
    head = SSE + b"Content-Encoding: gzip\r\n" + CHUNKED
    client, peer = await stream(gate, b"\x1f\x8bdata\n\n", head=head)
    peer.close()
    assert await client.is_left()
    await only_record_is_truncated(gate)


async def test_broken_chunked_body_gets_no_last_chunk(gate: Gate) -> None:
    client, peer = await stream(gate, b"{}\n\n", head=b"HTTP/1.1 200 OK\r\n" + CHUNKED)
    peer.close()
    assert await client.is_left()
    await only_record_is_truncated(gate)


@pytest.mark.parametrize("end", [b"zz\r\n", b"5\r\nabcdefgh", b"3;a=b\r\nabc\r\n"])
async def test_broken_chunk_of_a_stream_is_an_error(gate: Gate, end: bytes) -> None:
    client, peer = await stream(gate, b"data: 1\n\n")
    await peer.send(end)
    while await client.chunk():
        if gate.records.all:
            break
    assert await client.is_left()
    assert (await gate.records.next()).truncated


async def test_body_shorter_than_its_length_is_cut_off(gate: Gate) -> None:
    client, peer = await stream(gate, b"half", head=b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
    peer.close()
    assert await client.is_left()
    await only_record_is_truncated(gate)


async def test_body_without_length_that_is_reset_is_broken(gate: Gate) -> None:
    client, peer = await stream(gate, b"data: 1\n\n", head=SSE + b"\r\n")
    peer.reset()
    assert error_in(await client.chunk())["code"] == "upstream_broken"
    assert await client.is_left()
    await only_record_is_truncated(gate)


async def test_stream_that_stands_still_is_timed_out_with_an_event(start_gate: StartGate) -> None:
    gate = await start_gate(timeouts=Timeouts(idle=60.0))
    client, peer = await stream(gate, b"data: 1\n\n")
    gate.timers.advance(59)
    await peer.send(chunk(b"data: 2\n\n"))
    assert await client.chunk() == b"data: 2\n\n"
    gate.timers.advance(59)
    await peer.send(chunk(b"data: 3\n\n"))
    assert await client.chunk() == b"data: 3\n\n"
    gate.timers.advance(61)
    assert error_in(await client.chunk())["code"] == "upstream_timeout"
    assert await client.is_left()
    assert await peer.is_left()
    await only_record_is_truncated(gate, "upstream_timeout")


async def test_refused_upload_breaks_off_an_answer_that_had_begun(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(b"Transfer-Encoding: chunked") + b"1\r\nx\r\n")
    peer = await gate.openai.accept()
    await peer.head()
    await peer.read_until(b"x\r\n")
    await peer.send(SSE + CHUNKED + chunk(b"data: 1\n\n"))
    await client.read_until(b"\r\n\r\n")
    assert await client.chunk() == b"data: 1\n\n"
    await client.send(b"broken\r\n")
    assert error_in(await client.chunk())["code"] == "invalid_request"
    assert await client.is_left()
    assert await peer.is_left()


async def test_openai_sdk_raises_on_a_broken_stream(gate: Gate) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{gate.port}/v1", api_key=gate.token.decode(), max_retries=0
    ) as sdk:
        asking = asyncio.create_task(
            sdk.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": "hi"}], stream=True
            )
        )
        peer = await gate.openai.accept()
        await peer.request()
        event = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        data = msgspec.json.encode(event | {"choices": []})
        await peer.send(SSE + CHUNKED + chunk(b"data: " + data + b"\n\n"))
        events = await asking
        assert (await anext(events)).id == "1"
        peer.close()
        with pytest.raises(openai.APIError, match="closed the connection before its answer"):
            await anext(events)


async def test_anthropic_sdk_raises_on_a_broken_stream(gate: Gate) -> None:
    async with anthropic.AsyncAnthropic(
        base_url=f"http://127.0.0.1:{gate.port}/anthropic",
        api_key=gate.token.decode(),
        max_retries=0,
    ) as sdk:
        asking = asyncio.create_task(
            sdk.messages.create(
                model="some-model",
                max_tokens=10,
                messages=[{"role": "user", "content": "hi"}],
                stream=True,
            )
        )
        peer = await gate.anthropic.accept()
        await peer.request()
        await peer.send(SSE + CHUNKED + chunk(b'event: ping\ndata: {"type": "ping"}\n\n'))
        events = await asking
        waiting = asyncio.ensure_future(anext(events))
        peer.close()
        with pytest.raises(anthropic.APIStatusError, match="closed the connection before"):
            while True:
                await waiting
                waiting = asyncio.ensure_future(anext(events))
