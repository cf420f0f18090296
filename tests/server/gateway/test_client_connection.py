from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from llm_proxy.server.gateway.client_connection import LINGER_S

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Gate

pytestmark = pytest.mark.anyio

SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_idle_client_is_let_go(gate: Gate) -> None:
    silent, kept = await gate.connect(), await gate.connect()
    await kept.send(gate.request(target=b"/none", body=b""))
    await kept.response()
    gate.timers.advance(31)
    assert await silent.is_left()
    await kept.send(gate.request(target=b"/none", body=b""))
    await kept.response()
    gate.timers.advance(119)
    await kept.send(gate.request(target=b"/none", body=b""))
    assert (await kept.response()).status == 404
    gate.timers.advance(121)
    assert await kept.is_left()


async def test_slow_head_times_out_however_often_a_byte_comes(gate: Gate) -> None:
    client = await gate.connect()
    (connection,) = gate.connections
    for piece in (b"POST ", b"/v1", b"/chat"):
        connection.data_received(piece)
        gate.timers.advance(9)
    gate.timers.advance(4)
    response = await client.response()
    assert (response.status, response.code) == (408, "request_timeout")
    assert await client.is_left()


async def test_slow_body_times_out(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(b"Content-Length: 10") + b"12345")
    peer = await gate.openai.accept()
    await peer.head()
    await peer.read(5)
    gate.timers.advance(59)
    await client.send(b"6")
    await peer.read(1)
    gate.timers.advance(59)
    gate.timers.advance(2)
    response = await client.response()
    assert (response.status, response.code) == (408, "request_timeout")
    assert await peer.is_left()
    assert await client.is_left()


async def test_body_that_is_not_asked_for_yet_has_no_limit_of_time(gate: Gate) -> None:
    """While the gateway makes the client wait, it is not the client that is late."""
    gate.grants.may_load.clear()
    client = await gate.connect()
    await client.send(gate.request(b"Content-Length: 100000"))
    await gate.grants.is_asked.wait()
    await client.send(b"x" * 90_000)
    transport = gate.client_transport()
    async with asyncio.timeout(30):
        while transport.is_reading():
            await asyncio.sleep(0)
    gate.timers.advance(61)
    gate.grants.may_load.set()
    peer = await gate.openai.accept()
    await client.send(b"x" * 10_000)
    await peer.request()


async def test_request_in_work_has_no_limit_of_time_here(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    gate.timers.advance(119)  # the upstream's own limit is 120 s
    await peer.answer(b"late")
    assert (await client.response()).body == b"late"


async def test_refused_client_that_goes_on_sending_is_cut_off_in_time(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(b"nonsense\r\n\r\n")
    assert (await client.response()).status == 400
    (connection,) = gate.connections
    gate.timers.advance(LINGER_S - 0.5)
    assert gate.connections == {connection}
    connection.data_received(gate.request(body=b"{}"))  # is ignored
    gate.timers.advance(1)
    async with asyncio.timeout(30):
        while gate.connections:
            await asyncio.sleep(0)
    assert len(gate.records.all) == 1


async def test_slow_reader_gets_all_of_an_answer_that_ends_its_connection(gate: Gate) -> None:
    """Closing in stages does not cut off what waits to be read."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client = await gate.connect(sock)
    client.stop_reading()
    await client.send(gate.request(b"Content-Length: 10") + b"12345")
    peer = await gate.openai.accept()
    await peer.head()
    transport = gate.client_transport()
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    await peer.answer(b"x" * 60_000)  # early: the body hasn't come whole
    async with asyncio.timeout(30):
        while not gate.records.all:
            await asyncio.sleep(0)
    assert transport.get_write_buffer_size()
    gate.timers.advance(LINGER_S + 1)
    client.go_on_reading()
    assert len((await client.response()).body) == 60_000
    assert await client.is_left()


async def test_peer_address_is_recorded(gate: Gate) -> None:
    await gate.ask(gate.request(target=b"/none", body=b""))
    assert gate.records.all[0].client_ip == "127.0.0.1"


async def begin_drain(gate: Gate, *, idle_grace_s: float) -> None:
    gate.gateway.is_draining = True
    for connection in tuple(gate.connections):
        connection.drain(idle_grace_s)


async def test_drain_leaves_idle_connections_a_moment_and_running_ones_their_answer(
    gate: Gate,
) -> None:
    idle, begun, busy = await gate.connect(), await gate.connect(), await gate.connect()
    await begun.send(b"POST /v1/chat")
    await busy.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    await begin_drain(gate, idle_grace_s=5)
    await begun.send(b"/completions HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = await begun.response()
    assert (answer.code, answer.header(b"connection")) == ("missing_token", b"close")
    assert await begun.is_left()
    gate.timers.advance(4)
    await idle.send(gate.request(target=b"/none"))  # on its way when the drain began
    assert (await idle.response()).header(b"connection") == b"close"
    assert await idle.is_left()
    gate.timers.advance(10)
    await peer.answer(b"done")
    answer = await busy.response()
    assert (answer.body, answer.header(b"connection")) == (b"done", b"close")
    assert await busy.is_left()


async def test_idle_connections_end_when_the_moment_is_over(gate: Gate) -> None:
    idle, begun = await gate.connect(), await gate.connect()
    await begun.send(b"POST /v1/chat")
    await gate.ask(gate.request(target=b"/none"))  # what was sent before has been received
    await begin_drain(gate, idle_grace_s=5)
    gate.timers.advance(2)
    assert (await begun.response()).code == "request_timeout"
    gate.timers.advance(4)
    assert await idle.is_left()


async def test_answer_that_had_promised_to_go_on_is_followed_by_one_more(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
    assert b"\r\nConnection: close" not in await client.read_until(b"\r\n\r\n")
    await begin_drain(gate, idle_grace_s=5)
    await peer.send(b"done")
    assert await client.read(4) == b"done"
    gate.timers.advance(4)
    await client.send(gate.request(target=b"/none"))
    assert (await client.response()).header(b"connection") == b"close"
    assert await client.is_left()


async def test_what_outlasts_the_drain_ends_as_broken_answers_do(gate: Gate) -> None:
    stream, waiting, idle = await gate.connect(), await gate.connect(), await gate.connect()
    await stream.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.send(SSE + b"9\r\ndata: 1\n\n\r\n")
    await stream.read_until(b"data: 1\n\n\r\n")
    await waiting.send(gate.request(body=b"{}"))
    other = await gate.openai.accept()
    await other.request()
    await begin_drain(gate, idle_grace_s=5)
    for connection in tuple(gate.connections):
        connection.cut()
    rest = await stream.read_to_end()
    assert b"event: error" in rest or b'"code":"draining"' in rest
    assert not rest.endswith(b"0\r\n\r\n")
    answer = await waiting.response()
    assert (answer.status, answer.code, answer.header(b"connection")) == (503, "draining", b"close")
    assert await peer.is_left()
    assert await other.is_left()
    records = [await gate.records.next(), await gate.records.next()]
    assert {(r.status_code, r.error_code, r.truncated) for r in records} == {
        (200, "draining", True),
        (503, "draining", False),
    }
    idle.close()
