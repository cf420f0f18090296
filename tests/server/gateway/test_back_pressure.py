"""A slow side makes the other one wait; what the gateway holds stays small."""

from __future__ import annotations

import asyncio
import socket
import tracemalloc
import zlib
from typing import TYPE_CHECKING

import pytest

from llm_proxy.providers import Connection, Timeouts

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Gate, Peer, StartGate, Wire

pytestmark = pytest.mark.anyio

MIB = 1 << 20
BLOCK = bytes(range(256)) * 1024  # 256 KiB
MOST_HELD = 600_000  # bytes: two buffers' limits and what one read may add to them


async def pump(wire: Wire, size: int) -> int:
    """Sends `size` bytes as fast as they are taken; their checksum."""
    checksum = 0
    for _ in range(size // len(BLOCK)):
        checksum = zlib.crc32(BLOCK, checksum)
        await wire.send(BLOCK)
    return checksum


async def drain(wire: Wire, size: int, gate: Gate) -> tuple[int, int]:
    """Reads `size` bytes; their checksum, and the most that waited in the gateway meanwhile."""
    checksum = held = 0
    transport = gate.client_transport()
    while size:
        data = await wire.read_some()
        assert data
        checksum = zlib.crc32(data, checksum)
        size -= len(data)
        held = max(held, transport.get_write_buffer_size())
    return checksum, held


def small_socket() -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    return sock


async def test_large_download_is_whole_and_never_held(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (100 * MIB))
    await client.read_until(b"\r\n\r\n")
    sending = asyncio.create_task(pump(peer, 100 * MIB))
    checksum, held = await drain(client, 100 * MIB, gate)
    assert checksum == await sending
    assert held < MOST_HELD
    assert (await gate.records.next()).response_bytes == 100 * MIB


async def test_large_upload_is_whole(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(b"Content-Length: %d" % (100 * MIB)))
    peer = await gate.openai.accept()
    await peer.head()
    sending = asyncio.create_task(pump(client, 100 * MIB))
    checksum, _ = await drain(peer, 100 * MIB, gate)
    assert checksum == await sending
    await peer.answer(b"thanks")
    assert (await client.response()).body == b"thanks"
    assert (await gate.records.next()).request_bytes == 100 * MIB


async def test_client_that_does_not_read_pauses_the_upstream(gate: Gate) -> None:
    client = await gate.connect(small_socket())
    client.stop_reading()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * MIB))
    sent = await peer.send_until_blocked(BLOCK)
    assert sent < 32 * MIB  # what the kernel's buffers take
    assert gate.client_transport().get_write_buffer_size() < MOST_HELD
    client.go_on_reading()
    await client.read_until(b"\r\n\r\n")
    sending = asyncio.create_task(pump(peer, 64 * MIB - sent))
    await drain(client, 64 * MIB, gate)
    await sending


async def blocked_upload(gate: Gate, request: bytes) -> tuple[Wire, Peer, int]:
    client = await gate.connect()
    await client.send(request + BLOCK)
    peer = await gate.openai.accept()
    peer.stop_reading()
    sent = await client.send_until_blocked(BLOCK)
    assert sent < 32 * MIB
    (upstream_side,) = [
        connection.transport for connection in gate.connections if not connection.is_closed
    ]
    assert not upstream_side.is_reading()
    return client, peer, sent + len(BLOCK)


async def test_upstream_that_does_not_read_pauses_the_client(gate: Gate) -> None:
    request = gate.request(b"Content-Length: %d" % (64 * MIB))
    client, peer, sent = await blocked_upload(gate, request)
    peer.go_on_reading()
    await peer.head()
    sending = asyncio.create_task(pump(client, 64 * MIB - sent))
    await drain(peer, 64 * MIB, gate)
    await sending
    await peer.answer(b"ok")
    assert (await client.reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_upload_waits_while_its_connection_is_opened(start_gate: StartGate) -> None:
    gate = await start_gate(connection=Connection(max_conns=1))
    first = await gate.connect()
    await first.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    second = await gate.connect()
    await second.send(gate.request(b"Content-Length: %d" % (64 * MIB)))
    sent = await second.send_until_blocked(BLOCK)
    assert sent < 32 * MIB
    await peer.answer(b"first")
    await first.response()
    await peer.head()
    sending = asyncio.create_task(pump(second, 64 * MIB - sent))
    size = 64 * MIB
    while size:
        size -= len(await peer.read_some())
    await sending


async def test_what_waited_for_its_connection_can_pause_the_client_too(
    start_gate: StartGate,
) -> None:
    gate = await start_gate(is_narrow=True, max_request_size=1 << 30)
    client = await gate.connect()
    request = gate.request(b"Content-Length: %d" % (300 * MIB))
    client.writer.write(request + BLOCK)  # more than this upstream takes at once
    peer = await gate.openai.accept()
    peer.stop_reading()
    await client.send_until_blocked(BLOCK)
    assert not gate.client_transport().is_reading()


async def test_pipelined_request_waits_for_the_reader_of_the_one_before(gate: Gate) -> None:
    """The last piece of an answer fills the client's buffer: that may pause neither the upstream
    connection, which is idle by then, nor the next request that uses it."""
    client = await gate.connect(small_socket())
    client.stop_reading()
    await client.send(gate.request(body=b"1"))
    peer = await gate.openai.accept()
    transport = gate.client_transport()
    answers = 0
    while not transport.get_write_buffer_size():
        await peer.request()
        await peer.answer(b"x" * 200_000)
        answers += 1
        await gate.records.next()
        await client.send(gate.request(body=b"1"))
    other = await gate.connect()
    await other.send(gate.request(body=b"2"))
    assert (await peer.request()).endswith(b"2")
    await peer.answer(b"y" * 1000)
    assert (await other.response()).body == b"y" * 1000
    client.go_on_reading()
    for _ in range(answers):
        assert len((await client.response()).body) == 200_000
    await peer.request()
    await peer.answer(b"last")
    assert (await client.response()).body == b"last"


async def test_what_waits_for_a_client_is_held_once(gate: Gate) -> None:
    client = await gate.connect(small_socket())
    client.stop_reading()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    peer.writer.transport.set_write_buffer_limits(0)
    transport = gate.client_transport()
    chunk = b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK)
    tracemalloc.start()
    try:
        while not transport.get_write_buffer_size():
            peer.writer.write(chunk)
            await peer.writer.drain()  # so that nothing of it is held on this side
        traces = tracemalloc.take_snapshot().traces
    finally:
        tracemalloc.stop()
    # Of blocks as large as data is: coverage and other threads allocate small ones.
    kept = sum(trace.size for trace in traces if trace.size >= 4000)
    assert 0 < kept < 1.5 * len(BLOCK)  # which is as much as is read at once


async def test_upstream_told_to_wait_is_not_timed_out(gate: Gate) -> None:
    client = await gate.connect(small_socket())
    client.stop_reading()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * MIB))
    sent = await peer.send_until_blocked(BLOCK)
    gate.timers.advance(299)  # the idle limit of the upstream is 300 s as well
    client.go_on_reading()
    await client.read_until(b"\r\n\r\n")
    sending = asyncio.create_task(pump(peer, 64 * MIB - sent))
    await drain(client, 64 * MIB, gate)
    await sending


async def test_client_that_never_reads_is_given_up(gate: Gate) -> None:
    client = await gate.connect(small_socket())
    client.stop_reading()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * MIB))
    await peer.send_until_blocked(BLOCK)
    gate.timers.advance(301)
    record = await gate.records.next()
    assert (record.error_code, record.truncated) == ("client_closed", True)
    assert not gate.connections


async def test_upstream_that_never_takes_the_body_is_given_up(gate: Gate) -> None:
    request = gate.request(b"Content-Length: %d" % (64 * MIB))
    client, peer, _ = await blocked_upload(gate, request)
    gate.timers.advance(119)
    assert not gate.records.all
    gate.timers.advance(2)
    record = await gate.records.next()
    assert (record.status_code, record.error_code) == (504, "upstream_timeout")


async def test_slow_uploader_is_no_fault_of_the_upstream(start_gate: StartGate) -> None:
    """The wait for a response begins when the request has been sent."""
    gate = await start_gate(timeouts=Timeouts(response_header=10.0))
    client = await gate.connect()
    await client.send(gate.request(b"Content-Length: 10") + b"01234")
    peer = await gate.openai.accept()
    await peer.head()
    await peer.read(5)
    gate.timers.advance(11)
    await client.send(b"56789")
    assert await peer.read(5) == b"56789"
    gate.timers.advance(9)
    await peer.answer(b"in time")
    assert (await client.response()).body == b"in time"
