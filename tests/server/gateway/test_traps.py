"""The traps of httptools and uvloop that `design.md` lists, each met once through the gateway.

Most have closer tests elsewhere; this file shows that none was forgotten.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Client, Gate, Peer

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def send_slowly(wire: Client | Peer, data: bytes) -> None:
    for start in range(0, len(data), 3):
        await wire.send(data[start : start + 3])
        await asyncio.sleep(0)


async def test_url_status_and_bodies_come_in_pieces(gate: Gate) -> None:
    client = await gate.connect()
    await send_slowly(client, gate.request(target=b"/v1/models?a=1", body=b'{"a": 1}'))
    peer = await gate.openai.accept()
    received = await peer.request()
    assert received.startswith(b"POST /v1/models?a=1 HTTP/1.1\r\n")
    assert received.endswith(b'\r\n\r\n{"a": 1}')
    await send_slowly(peer, OK.replace(b"200 OK", b"418 I am a teapot"))
    response = await client.response()
    assert response.head.startswith(b"HTTP/1.1 418 I am a teapot\r\n")
    assert response.body == b"ok"


async def test_values_keep_trailing_blanks(gate: Gate) -> None:
    client = await gate.connect()
    lines = (b"Connection: x-hop \t", b"X-Hop: 1", b"Content-Length: 2  ")
    for _ in range(2):
        await client.send(gate.request(*lines) + b"{}")
        peer = gate.openai.all[0] if gate.openai.all else await gate.openai.accept()
        received = await peer.request()
        assert received.endswith(b"\r\nContent-Length: 2  \r\n\r\n{}")
        assert b"X-Hop" not in received
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2  \r\nConnection: x \r\n\r\nok")
        response = await client.response()
        assert (response.body, response.header(b"Connection")) == (b"ok", None)


async def test_trailers_are_no_headers(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(
        gate.request(b"Transfer-Encoding: chunked") + b"0\r\nContent-Length: 9\r\nHost: x\r\n\r\n"
    )
    peer = await gate.openai.accept()
    assert (await peer.request()).endswith(b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n")
    await peer.send(b"Content-Length: 9\r\nTransfer-Encoding: gzip\r\n\r\n")
    assert (await client.response()).body == b"ok"
    await client.send(gate.request(body=b"{}"))
    await peer.request()  # both connections go on


async def test_chunked_of_http_10_is_refused(gate: Gate) -> None:
    request = gate.request(b"Transfer-Encoding: chunked").replace(b"HTTP/1.1", b"HTTP/1.0")
    assert (await gate.ask(request + b"0\r\n\r\n")).status == 400
    _, response = await gate.relay(
        gate.request(body=b"{}"), b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    )
    assert response.code == "upstream_broken"


async def test_interim_responses_begin_and_complete(gate: Gate) -> None:
    _, response = await gate.relay(
        gate.request(body=b"{}"), b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK
    )
    assert (response.status, response.body) == (200, b"ok")


async def test_response_parser_cannot_be_told_of_head(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(method=b"HEAD") + gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    assert (await client.response(method="HEAD")).header(b"Content-Length") == b"1000"
    await peer.request()
    await peer.send(OK)
    assert (await client.response()).body == b"ok"


async def test_body_without_length_ends_at_eof(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")
    peer.close()
    assert (await client.response()).body == b"all of it"


async def test_rest_of_the_buffer_waits_its_turn(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(body=b"1") + gate.request(target=b"/none", body=b"2"))
    peer = await gate.openai.accept()
    await peer.request()
    assert not gate.records.all  # the second is not even looked at
    await peer.send(OK)
    assert (await client.response()).body == b"ok"
    assert (await client.response()).status == 404


async def test_error_of_a_parser_does_not_stick(gate: Gate) -> None:
    assert (await gate.ask(b"broken\r\n\r\n")).status == 400
    client = await gate.connect()
    for answer, status in ((b"broken\r\n\r\n", 502), (OK, 200)):
        await client.send(gate.request(body=b"{}"))
        peer = await gate.openai.accept()
        await peer.request()
        await peer.send(answer)
        assert (await client.response()).status == status


async def test_body_of_an_upgrade_is_in_the_tail(gate: Gate) -> None:
    lines = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMA")
    received, response = await gate.relay(gate.request(*lines, body=b"in the tail"), OK)
    assert received.endswith(b"\r\n\r\nin the tail")
    assert b"pgrade" not in received
    assert response.status == 200


async def test_bytes_after_a_last_request_do_not_kill_it(gate: Gate) -> None:
    _, response = await gate.relay(
        gate.request(b"Connection: close", body=b"{}") + b"\x16\x03\x01garbage", OK
    )
    assert response.body == b"ok"


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")
async def test_paused_transport_sees_no_fin(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    gate.client_transport().pause_reading()
    (connection,) = gate.connections
    connection.pause_reading()  # as a pipelining client or a slow upstream makes it do
    client.close()
    async with asyncio.timeout(30):
        while not gate.records.all:
            gate.timers.advance(0.25)
            await asyncio.sleep(0.001)
    assert await peer.is_left()


async def test_write_on_a_lost_transport_raises(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    await (await gate.openai.accept()).request()
    (connection,) = gate.connections
    client.reset()
    await gate.records.next()
    with pytest.raises(RuntimeError):
        connection.transport.write(b"too late")
    connection.write(b"is dropped")
    connection.pause_reading()
    connection.resume_reading()
    connection.close()
    connection.abort()
    connection.reset()


async def test_answer_to_an_unread_upload_is_not_lost_to_a_reset(gate: Gate) -> None:
    client = await gate.connect()
    client.writer.write(gate.request(b"Content-Length: 1000000000") + b"x" * 2_000_000)
    response = await client.response()
    assert (response.status, response.code) == (413, "body_too_large")
    assert await client.read_to_end() == b""


async def test_expiry_of_a_kept_connection_races_its_reuse(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(body=b"1"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.send(OK)
    await client.response()
    await client.send(gate.request(b"Idempotency-Key: 1", body=b"2"))
    await peer.request()
    peer.close()
    other = await gate.openai.accept()
    assert (await other.request()).endswith(b"2")
    await other.send(OK)
    assert (await client.response()).body == b"ok"
