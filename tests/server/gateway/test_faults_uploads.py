"""Answers that come before the request has been sent, and upstreams that hang up meanwhile."""

from __future__ import annotations

import asyncio
import gzip
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Client, Gate, Peer

pytestmark = pytest.mark.anyio

MIB = 1 << 20
LINES = {
    "length": b"Content-Length: %d" % (64 * MIB),
    "chunked": b"Transfer-Encoding: chunked",
}


async def upload(gate: Gate, framing: str) -> tuple[Client, Peer, asyncio.Task[None]]:
    """A client that sends as fast as it may, and reads only what it gets at the end."""
    client = await gate.connect()
    await client.send(gate.request(LINES[framing]))
    peer = await gate.openai.accept()
    await peer.head()

    async def send() -> None:
        piece = b"x" * 65536 if framing == "length" else b"10000\r\n" + b"x" * 65536 + b"\r\n"
        for _ in range(64 * MIB // 65536 - 1):
            client.writer.write(piece)
            await client.writer.drain()

    return client, peer, asyncio.create_task(send())


async def stop(sending: asyncio.Task[None]) -> None:
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


@pytest.mark.parametrize("framing", LINES)
@pytest.mark.parametrize("status", [b"413 Too Large", b"401 No", b"200 OK", b"503 Busy"])
@pytest.mark.parametrize("how", ["stays", "close", "reset"])
async def test_early_answer_reaches_the_client_that_is_still_sending(
    gate: Gate, framing: str, status: bytes, how: str
) -> None:
    client, peer, sending = await upload(gate, framing)
    await peer.read(MIB)
    await peer.answer(b"early", b"Connection: close", status=status)
    if how != "stays":
        getattr(peer, how)()  # with bytes unread, so that a close is a reset as well
    response = await client.response()
    assert response.head.startswith(b"HTTP/1.1 " + status)
    assert response.body == b"early"
    assert response.header(b"Connection") == b"close"
    await stop(sending)
    record = await gate.records.next()
    assert (record.status_code, record.error_code) == (int(status[:3]), "")
    assert not record.truncated
    assert await client.is_left()
    if how == "stays":
        while await peer.read_some():  # no more of the body than was on its way
            pass


@pytest.mark.parametrize("framing", LINES)
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_hang_up_in_the_middle_of_an_upload_is_502(
    gate: Gate, framing: str, how: str
) -> None:
    client, peer, sending = await upload(gate, framing)
    await peer.read(MIB)
    getattr(peer, how)()
    response = await client.response()
    assert (response.status, response.code) == (502, "upstream_broken")
    await stop(sending)
    record = await gate.records.next()
    assert (record.status_code, record.error_code) == (502, "upstream_broken")
    assert not gate.openai.has_news()  # what was sent of it is not sent again


async def test_half_closed_upstream_is_502(gate: Gate) -> None:
    """It will never answer: a FIN before the head is the end."""
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    peer.half_close()
    response = await client.response()
    assert (response.status, response.code) == (502, "upstream_broken")
    assert await peer.is_left()
    assert (await gate.records.next()).error_code == "upstream_broken"


@pytest.mark.parametrize("status", [b"400 Bad", b"429 Slow Down", b"500 Oops"])
async def test_compressed_error_passes_and_is_recorded_readable(gate: Gate, status: bytes) -> None:
    body = gzip.compress(b'{"error": {"message": "what went wrong"}}')
    lines = (b"Content-Type: application/json", b"Content-Encoding: gzip", b"Retry-After: 2")
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.answer(body, *lines, status=status)
    response = await client.response()
    assert response.head.startswith(b"HTTP/1.1 " + status + b"\r\n" + b"\r\n".join(lines))
    assert response.body == body
    record = await gate.records.next()
    assert (record.status_code, record.error_code) == (int(status[:3]), "")
    assert (record.body, record.content_encoding) == (body, "gzip")  # the writer decodes it


@pytest.mark.parametrize(
    "early", [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"220 hi\r\n"]
)
async def test_upstream_that_speaks_before_it_is_asked_is_not_believed(
    gate: Gate, early: bytes
) -> None:
    """What it said before the request was sent answers no request."""
    client = await gate.connect()
    await client.send(gate.request(body=b"1"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.answer(b"one")
    assert (await client.response()).body == b"one"
    await peer.send(early)
    assert await peer.is_left()
    await client.send(gate.request(body=b"2"))
    other = await gate.openai.accept()
    await other.request()
    await other.answer(b"two")
    assert (await client.response()).body == b"two"
