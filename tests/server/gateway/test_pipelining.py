"""Keep-alive and pipelined requests: answered one by one, in order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from llm_proxy.server.gateway.client_connection import MAX_PIPELINED_BYTES

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Gate, Peer

pytestmark = pytest.mark.anyio


async def test_requests_are_answered_in_order_on_one_connection(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(b"".join(gate.request(body=b"%d" % n) for n in range(5)))
    peer = await gate.openai.accept()
    for n in range(5):
        assert (await peer.request()).endswith(b"\r\n\r\n%d" % n)
        await peer.answer(b"answer %d" % n)
    for n in range(5):
        assert (await client.response()).body == b"answer %d" % n
    assert not gate.openai.has_news()


async def test_thousand_requests_at_once(gate: Gate) -> None:
    client = await gate.connect()

    async def serve(peer: Peer) -> None:
        for _ in range(1000):
            await peer.answer((await peer.request())[-4:])

    client.writer.write(b"".join(gate.request(body=b"%04d" % n) for n in range(1000)))
    async with asyncio.TaskGroup() as group:
        group.create_task(serve(await gate.openai.accept()))
        for n in range(1000):
            assert (await client.response()).body == b"%04d" % n
    assert len(gate.records.all) == 1000


async def test_thousand_refusals_at_once(gate: Gate) -> None:
    client = await gate.connect()
    client.writer.write(gate.request(target=b"/none", body=b"{}") * 1000)
    for _ in range(1000):
        assert (await client.response()).status == 404
    assert not gate.openai.has_news()


async def test_requests_cut_anywhere_are_found(gate: Gate) -> None:
    client = await gate.connect()
    requests = gate.request(target=b"/none", body=b"12345") + gate.request(
        b"Transfer-Encoding: chunked", target=b"/none"
    )
    requests += b"3\r\nabc\r\n0\r\n\r\n" + gate.request(target=b"/none", method=b"DELETE")
    for cut in range(1, len(requests)):
        await client.send(requests[:cut])
        await asyncio.sleep(0)
        await client.send(requests[cut:])
        for status in (404, 404, 404):
            assert (await client.response()).status == status


async def test_what_comes_between_two_pipelined_requests_keeps_its_place(gate: Gate) -> None:
    """The next request starts a tick after the last answer; bytes that arrive in that tick are
    behind those that were waiting."""
    client = await gate.connect()
    await client.send(gate.request(target=b"/first", body=b""))
    assert (await client.response()).status == 404
    (connection,) = gate.connections
    one, two = (gate.request(target=b"/" + name, body=b"") for name in (b"one", b"two"))
    connection.data_received(gate.request(target=b"/zero", body=b"") + one[:30])
    connection.data_received(one[30:] + two)
    for name in ("zero", "one", "two"):
        message = (await client.response()).error["message"]
        assert message.startswith(f"/{name} is not an allowed endpoint")


async def test_reading_stops_when_too_much_is_pipelined(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    request = gate.request(body=b"x" * 1000)
    client.writer.write(request * 700)
    transport = gate.client_transport()
    async with asyncio.timeout(30):
        while transport.is_reading():
            await asyncio.sleep(0)
    await peer.answer(b"first")
    assert (await client.response()).body == b"first"
    for _ in range(3 * MAX_PIPELINED_BYTES // len(request)):
        assert (await peer.request()).endswith(b"x" * 1000)
        await peer.answer()
        assert (await client.response()).status == 200


async def test_client_that_reads_no_answers_is_not_served_more(gate: Gate) -> None:
    """Otherwise each further request would add its answer to the memory held for that client."""
    client = await gate.connect()
    client.stop_reading()
    client.writer.write(gate.request(body=b"{}") * 400)
    peer = await gate.openai.accept()
    served = 0

    async def serve() -> None:
        nonlocal served
        while True:
            await peer.request()
            served += 1
            await peer.answer(b"x" * 50_000)

    serving = asyncio.create_task(serve())
    async with asyncio.timeout(30):
        while not gate.client_transport().get_write_buffer_size():
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert served < 400
    assert gate.client_transport().get_write_buffer_size() < 300_000
    client.go_on_reading()
    for _ in range(400):
        assert len((await client.response()).body) == 50_000
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


@pytest.mark.parametrize("blank", [b"\r\n", b"\r\n\r\n"])
async def test_blank_line_before_a_request_is_skipped(gate: Gate, blank: bytes) -> None:
    client = await gate.connect()
    for _ in range(2):
        await client.send(blank[:2] + gate.request(target=b"/none", body=b""))
        assert (await client.response()).status == 404


async def test_endless_blank_lines_are_refused_at_once(gate: Gate) -> None:
    response = await gate.ask(b"\r\n" * 30_000)
    assert (response.status, response.header(b"Connection")) == (400, b"close")


async def test_bytes_after_a_last_request_do_not_disturb_it(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(b"Connection: close", body=b"{}") + b"\x00garbage\r\n\r\n")
    peer = await gate.openai.accept()
    assert (await peer.request()).endswith(b"\r\n\r\n{}")
    client.writer.write(b"more garbage" * 100_000)
    await peer.answer(b"ok")
    response = await client.response()
    assert (response.status, response.body) == (200, b"ok")
    assert response.header(b"Connection") == b"close"
    assert await client.read_to_end() == b""  # and no reset, which could overtake the answer
    assert len(gate.records.all) == 1


async def test_kept_upstream_connection_serves_other_clients(gate: Gate) -> None:
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    await gate.relay(gate.request(body=b"1"), ok)
    peer = gate.openai.all[0]
    other = await gate.connect()
    await other.send(gate.request(body=b"2"))
    assert (await peer.request()).endswith(b"2")
    await peer.send(ok)
    assert (await other.response()).body == b"ok"
    assert not gate.openai.has_news()
