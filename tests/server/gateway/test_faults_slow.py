"""Peers that are slow on purpose, or for ever: each wait has an end, each buffer a limit."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from llm_proxy.providers import Timeouts

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Client, Gate, Peer, StartGate

pytestmark = pytest.mark.anyio

S = b"HTTP/1.1 200 OK\r\n"
SSE = S + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
MOST_HELD = 256 * 1024  # bytes, for a client that doesn't read
EVENT = b"e\r\ndata: 1234567\n\r\n"


def narrow_socket() -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return sock


async def drip(gate: Gate, data: bytes, *, every_s: float) -> None:
    """One byte at a time, until the gateway has had enough."""
    (connection,) = gate.connections
    for index in range(len(data)):
        connection.data_received(data[index : index + 1])
        gate.timers.advance(every_s)
        if gate.records.all or connection.transport.is_closing():
            return
    raise AssertionError("all of it was waited for")


async def is_timed_out(gate: Gate, client: Client) -> None:
    response = await client.response()
    assert (response.status, response.code) == (408, "request_timeout")
    assert response.header(b"Connection") == b"close"
    assert await client.is_left()
    record = await gate.records.next()
    assert (record.status_code, record.error_code) == (408, "request_timeout")
    assert not record.truncated
    assert len(gate.records.all) == 1


async def test_head_that_drips_is_408(gate: Gate) -> None:
    client = await gate.connect()
    await drip(gate, gate.request(b"X: " + b"x" * 1000, body=b""), every_s=1)
    await is_timed_out(gate, client)
    assert not gate.openai.has_news()


async def test_second_head_of_a_connection_has_no_more_time_than_the_first(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(target=b"/none", body=b""))
    assert (await client.response()).status == 404
    await gate.records.next()
    gate.records.all.clear()
    began = gate.timers.now
    await drip(gate, gate.request(b"X: " + b"x" * 1000, body=b""), every_s=1)
    assert gate.timers.now - began < 35
    await is_timed_out(gate, client)


@pytest.mark.parametrize("blank", [b"\r\n" * 200, b"\r\n\r\n" * 100])
async def test_blank_lines_do_not_buy_time(gate: Gate, blank: bytes) -> None:
    client = await gate.connect()
    began = gate.timers.now
    await drip(gate, blank, every_s=1)
    assert gate.timers.now - began < 35
    assert await client.is_left()


BODIES = {
    "of known length": (b"Content-Length: 100000", b"x" * 1000),
    "chunk": (b"Transfer-Encoding: chunked", b"ffff\r\n" + b"x" * 1000),
    "sizes of chunks": (b"Transfer-Encoding: chunked", b"1\r\nx\r\n" * 200),
    "trailer": (b"Transfer-Encoding: chunked", b"0\r\n" + b"X: " + b"x" * 1000),
    "size of the first chunk": (b"Transfer-Encoding: chunked", b"000000001\r\nx\r\n" * 70),
}


@pytest.mark.parametrize("every_s", [1, 10, 50])
@pytest.mark.parametrize("name", BODIES)
async def test_body_that_drips_is_408(gate: Gate, name: str, every_s: float) -> None:
    """However often a byte comes: as many connections as a client likes would stay open."""
    line, body = BODIES[name]
    client = await gate.connect()
    await client.send(gate.request(line))
    peer = await gate.openai.accept()
    await peer.head()
    began = gate.timers.now
    await drip(gate, body, every_s=every_s)
    assert gate.timers.now - began <= 180
    await is_timed_out(gate, client)
    assert b"0\r\n\r\n" not in await peer.read_to_end()


async def test_body_that_moves_has_all_the_time_it_needs(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(b"Content-Length: 204800"))
    peer = await gate.openai.accept()
    await peer.head()
    for _ in range(100):
        await client.send(b"x" * 2048)
        await peer.read(2048)
        gate.timers.advance(50)
    await peer.answer(b"patient")
    assert (await client.response()).body == b"patient"


async def test_body_that_drips_after_the_answer_has_begun_breaks_it_off(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(b"Content-Length: 100000"))
    peer = await gate.openai.accept()
    await peer.head()
    await peer.send(SSE + EVENT)
    await client.read_until(b"1234567\n\r\n")
    await drip(gate, b"x" * 1000, every_s=10)
    assert not (await client.read_to_end()).endswith(b"0\r\n\r\n")
    record = await gate.records.next()
    assert (record.status_code, record.error_code) == (200, "request_timeout")
    assert record.truncated
    await peer.read_to_end()  # the upstream is hung up on


async def send_endlessly(peer: Peer, piece: bytes) -> None:
    while True:
        peer.writer.write(piece)
        await peer.writer.drain()


async def most_held(gate: Gate, peer: Peer) -> int:
    """Bytes that the gateway holds for its client, at most, until nothing moves any more."""
    here, there = gate.client_transport(), peer.writer.transport
    most = still = 0
    before = (-1, -1)
    while still < 50:
        await asyncio.sleep(0.002)
        now = here.get_write_buffer_size(), there.get_write_buffer_size()
        still = still + 1 if now == before and now[0] else 0
        most, before = max(most, now[0]), now
    return most


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (SSE, EVENT * 10),
        (SSE, b"10000\r\n" + b"x" * 65536 + b"\r\n"),
        (S + b"Content-Length: 99999999999\r\n\r\n", b"x" * 262144),
        (S + b"\r\n", b"x" * 1000),
    ],
    ids=["events", "chunks", "length", "close"],
)
async def test_client_that_reads_nothing_costs_a_bounded_buffer(
    gate: Gate, head: bytes, piece: bytes
) -> None:
    """Whatever an endless upstream sends. It is made to wait, and goes on when the client does."""
    client = await gate.connect(narrow_socket())
    client.stop_reading()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.send(head)
    sending = asyncio.create_task(send_endlessly(peer, piece))
    async with asyncio.timeout(10):
        most = await most_held(gate, peer)
        client.go_on_reading()
        for _ in range(20):  # the client reads a little, then nothing any more
            await client.read_some()
        client.stop_reading()
        most = max(most, await most_held(gate, peer))
    assert 0 < most <= MOST_HELD
    gate.timers.advance(301)
    record = await gate.records.next()
    assert (record.error_code, record.truncated) == ("client_closed", True)
    with pytest.raises(ConnectionError):
        await sending
    assert not gate.connections


@pytest.mark.parametrize("kind", [b"application/json", b"text/event-stream"])
async def test_request_timeout_never_cuts_an_answer_that_moves(
    start_gate: StartGate, kind: bytes
) -> None:
    gate = await start_gate(timeouts=Timeouts(response_header=10.0, idle=20.0))
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    gate.timers.advance(9)
    await peer.send(S + b"Content-Type: " + kind + b"\r\nTransfer-Encoding: chunked\r\n\r\n")
    await client.read_until(b"\r\n\r\n")
    for _ in range(100):
        gate.timers.advance(19)
        await peer.send(EVENT)
        await client.read_until(b"1234567\n\r\n")
    await peer.send(b"0\r\n\r\n")
    assert await client.read(5) == b"0\r\n\r\n"
    record = await gate.records.next()
    assert (record.status_code, record.error_code, record.truncated) == (200, "", False)


@pytest.mark.parametrize(
    ("whole", "step"),
    [
        (S + b"X-Slow: " + b"x" * 100, 1),
        (b"HTTP/1.1 102 Processing\r\n\r\n" * 12, 27),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 12, 25),
    ],
)
async def test_head_that_drips_from_the_upstream_is_504(
    start_gate: StartGate, whole: bytes, step: int
) -> None:
    gate = await start_gate(timeouts=Timeouts(response_header=10.0))
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    for start in range(0, len(whole), step):
        await peer.send(whole[start : start + step])
        await asyncio.sleep(0)
        gate.timers.advance(1)
        if gate.records.all:
            break
    response = await client.response()
    assert (response.status, response.code) == (504, "upstream_timeout")
    assert await peer.is_left()
    record = await gate.records.next()
    assert (record.status_code, record.error_code, record.truncated) == (
        504,
        "upstream_timeout",
        False,
    )


async def test_slow_peers_hold_up_nobody_else(gate: Gate) -> None:
    slow = [await gate.connect() for _ in range(50)]
    for client in slow:
        await client.send(gate.request(b"Content-Length: 10") + b"1")
    for _ in slow:
        await (await gate.openai.accept()).head()
    received, response = await gate.relay(
        gate.request(body=b"{}"), S + b"Content-Length: 0\r\n\r\n"
    )
    assert response.status == 200
    gate.timers.advance(61)
    gate.timers.advance(61)
    for client in slow:
        assert (await client.response()).status == 408
    for client in slow:
        client.close()
    async with asyncio.timeout(30):
        while len(gate.connections) > 1:
            await asyncio.sleep(0)
