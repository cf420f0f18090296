"""Upstreams that can't be reached, don't answer, or hang up on a kept connection."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from llm_proxy.http1.retry import Retries
from llm_proxy.providers import Connection, Retry, Timeouts

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Client, Gate, Peer, StartGate

pytestmark = pytest.mark.anyio


async def kept(gate: Gate) -> tuple[Client, Peer]:
    """A client and an upstream connection that have served one request."""
    client = await gate.connect()
    await client.send(gate.request(body=b"first"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.answer()
    await client.response()
    return client, peer


async def test_connection_closed_while_idle_is_replaced(gate: Gate) -> None:
    client, peer = await kept(gate)
    peer.close()
    assert await peer.is_left()
    await client.send(gate.request(body=b"second"))
    other = await gate.openai.accept()
    assert (await other.request()).endswith(b"second")
    await other.answer(b"ok")
    assert (await client.response()).body == b"ok"


BODIES = [
    (b"Content-Length: 6", b"second"),
    (b"Transfer-Encoding: chunked", b"6\r\nsecond\r\n0\r\n\r\n"),
]
KEY = b"Idempotency-Key: 1"


async def read_all(sock: socket.socket, end: bytes) -> bytes:
    received = b""
    while not received.endswith(end):
        received += await asyncio.get_running_loop().sock_recv(sock, 65536)
    return received


@pytest.mark.parametrize(("line", "body"), BODIES)
async def test_connection_closed_as_it_is_used_again_is_replaced_unseen(
    start_gate: StartGate, line: bytes, body: bytes
) -> None:
    loop = asyncio.get_running_loop()
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket() as client,  # sockets of our own can be closed without the loop noticing
    ):
        listener.setblocking(False)
        client.setblocking(False)
        gate = await start_gate(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        await loop.sock_connect(client, ("127.0.0.1", gate.port))
        await loop.sock_sendall(client, gate.request(body=b"first"))
        peer, _ = await loop.sock_accept(listener)
        await read_all(peer, b"first")
        await loop.sock_sendall(peer, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await read_all(client, b"{}")

        client.send(gate.request(line) + body)
        peer.close()  # before the gateway has seen either

        other, _ = await loop.sock_accept(listener)
        with other:
            assert await read_all(other, body)
            await loop.sock_sendall(other, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            assert (await read_all(client, b"ok")).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize(("line", "body"), BODIES)
async def test_request_that_may_be_repeated_is_sent_again_unseen(
    gate: Gate, line: bytes, body: bytes, how: str
) -> None:
    client, peer = await kept(gate)
    await client.send(gate.request(line, KEY) + body)
    request = await peer.request()
    getattr(peer, how)()
    other = await gate.openai.accept()
    assert await other.request() == request
    await other.answer(b"ok")
    assert (await client.response()).body == b"ok"


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_request_that_was_received_is_not_repeated(gate: Gate, how: str) -> None:
    client, peer = await kept(gate)
    await client.send(gate.request(body=b"second"))
    await peer.request()
    getattr(peer, how)()
    response = await client.response()
    assert (response.status, response.code) == (502, "upstream_broken")
    assert not gate.openai.has_news()


async def test_body_still_being_sent_is_retried_with_what_was_sent(gate: Gate) -> None:
    client, peer = await kept(gate)
    await client.send(gate.request(b"Content-Length: 6", KEY) + b"sec")
    head = await peer.head()
    assert await peer.read(3) == b"sec"
    peer.close()
    other = await gate.openai.accept()
    assert await other.head() == head
    await client.send(b"ond")
    assert await other.read(6) == b"second"


@pytest.mark.parametrize("attempts", [0, 1, 2])
async def test_retries_are_counted(start_gate: StartGate, attempts: int) -> None:
    gate = await start_gate(retry=Retry(attempts=attempts))
    client = await gate.connect()
    await client.send(gate.request(KEY, body=b"{}"))
    for _ in range(1 + attempts):
        peer = await gate.openai.accept()
        assert (await peer.request()).endswith(b"{}")
        peer.close()
    response = await client.response()
    assert (response.status, response.code) == (502, "upstream_broken")
    assert not gate.openai.has_news()
    assert await gate.counted() == 1


async def test_client_that_leaves_before_a_retry_ends_it(start_gate: StartGate) -> None:
    gate = await start_gate()
    gate.upstreams[0].pool.retries = Retries(1, random=lambda: 1.0)
    client = await gate.connect()
    await client.send(gate.request(KEY, body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    peer.close()
    client.close()
    await gate.records.next()
    await asyncio.sleep(0.15)  # longer than the first pause between two tries
    assert not gate.openai.has_news()
    assert gate.gateway.running == 0


@pytest.mark.parametrize("begun", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n"])
async def test_nothing_is_retried_once_a_byte_came_back(gate: Gate, begun: bytes) -> None:
    client, peer = await kept(gate)
    await client.send(gate.request(body=b"second"))
    await peer.request()
    await peer.send(begun)
    peer.close()
    response = await client.response()
    assert (response.status, response.code) == (502, "upstream_broken")
    assert not gate.openai.has_news()


async def test_nothing_is_retried_on_a_new_connection(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    peer.close()
    response = await client.response()
    assert (response.status, response.code) == (502, "upstream_broken")
    assert not gate.openai.has_news()


async def test_long_request_is_not_kept_for_a_retry(gate: Gate) -> None:
    client, peer = await kept(gate)
    await client.send(gate.request(body=b"x" * 100_000))
    await peer.request()
    peer.close()
    assert (await client.response()).code == "upstream_broken"


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_upstream_that_hangs_up_at_once_is_an_error(gate: Gate, how: str) -> None:
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    getattr(peer, how)()
    response = await client.response()
    assert (response.status, response.code) == (502, "upstream_broken")
    await client.send(gate.request(body=b"again"))
    await (await gate.openai.accept()).request()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/0.9 200 OK\r\n\r\n",
        b"RTSP/1.0 200 OK\r\n\r\n",
        b"\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 11_000,
    ],
)
async def test_answer_that_is_not_http_is_refused_at_once(gate: Gate, answer: bytes) -> None:
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.send(answer)
    response = await client.response()
    assert (response.status, response.code) == (502, "upstream_broken")
    assert await peer.is_left()


async def test_refused_connection_is_unreachable(start_gate: StartGate) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        gate = await start_gate(base_url=f"http://127.0.0.1:{unused.getsockname()[1]}")
        response = await gate.ask(gate.request(body=b"{}"))
    assert (response.status, response.code) == (502, "upstream_unreachable")
    assert response.error["message"] == "The upstream refused the connection."
    assert response.header(b"Connection") == b"keep-alive"
    record = await gate.records.next()
    assert (record.status_code, record.error_code) == (502, "upstream_unreachable")
    assert await gate.counted() == 0  # nothing left, so nothing is charged


async def test_unknown_host_is_unreachable(start_gate: StartGate) -> None:
    gate = await start_gate(base_url="http://upstream.invalid")
    response = await gate.ask(gate.request(body=b"{}"))
    assert response.error["message"] == "The upstream's host name could not be resolved."


async def test_connecting_has_a_limit(start_gate: StartGate) -> None:
    """A TLS upstream that never says hello."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        gate = await start_gate(
            base_url=f"https://127.0.0.1:{silent.getsockname()[1]}",
            timeouts=Timeouts(connect=0.05),
            retry=Retry(attempts=0),
        )
        response = await gate.ask(gate.request(body=b"{}"))
    assert (response.status, response.code) == (502, "upstream_unreachable")
    assert response.error["message"] == "Connecting to the upstream took longer than 0.05 s."


async def test_failed_connecting_is_tried_again(start_gate: StartGate) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        gate = await start_gate(
            base_url=f"https://127.0.0.1:{silent.getsockname()[1]}",
            timeouts=Timeouts(connect=0.05),
            retry=Retry(attempts=2),
        )
        assert (await gate.ask(gate.request(body=b"{}"))).code == "upstream_unreachable"
        tries = 0
        while True:
            try:
                connection, _ = silent.accept()
            except BlockingIOError:
                break
            connection.close()
            tries += 1
        assert tries == 3


async def test_response_has_a_limit(start_gate: StartGate) -> None:
    gate = await start_gate(timeouts=Timeouts(response_header=10.0))
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\n")  # not the whole head
    gate.timers.advance(9)
    await asyncio.sleep(0)
    assert not gate.records.all
    gate.timers.advance(2)
    response = await client.response()
    assert (response.status, response.code) == (504, "upstream_timeout")
    assert await peer.is_left()


async def test_body_without_movement_is_given_up(start_gate: StartGate) -> None:
    gate = await start_gate(timeouts=Timeouts(response_header=10.0, idle=20.0))
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
    await client.read_until(b"\r\n\r\n")
    gate.timers.advance(19)
    await peer.send(b"12345")
    await client.read(5)
    gate.timers.advance(19)
    gate.timers.advance(2)
    assert await client.is_left()
    record = await gate.records.next()
    assert (record.error_code, record.truncated) == ("upstream_timeout", True)


async def test_idle_connection_is_closed_in_time(start_gate: StartGate) -> None:
    gate = await start_gate(connection=Connection(idle_timeout=7.0))
    _, peer = await kept(gate)
    gate.timers.advance(6)
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    await peer.request()
    await peer.answer()
    await client.response()
    gate.timers.advance(8)
    assert await peer.is_left()


async def test_no_more_than_the_idle_limit_is_kept(start_gate: StartGate) -> None:
    gate = await start_gate(connection=Connection(max_idle_conns=1))
    clients = [await gate.connect() for _ in range(2)]
    for client in clients:
        await client.send(gate.request(body=b"{}"))
    peers = [await gate.openai.accept() for _ in range(2)]
    for peer in peers:
        await peer.request()
        await peer.answer()
    for client in clients:
        await client.response()
    assert await peers[1].is_left()
    await clients[0].send(gate.request(body=b"{}"))
    await peers[0].request()


async def test_requests_over_the_connection_limit_wait_their_turn(start_gate: StartGate) -> None:
    gate = await start_gate(connection=Connection(max_conns=2))
    clients = [await gate.connect() for _ in range(6)]
    for number, client in enumerate(clients):
        await client.send(gate.request(body=b"%d" % number))
    peers = [await gate.openai.accept() for _ in range(2)]
    for _ in range(3):
        for peer in peers:
            await peer.answer((await peer.request())[-1:])
    for number, client in enumerate(clients):
        assert (await client.response()).body == b"%d" % number
    assert not gate.openai.has_news()


async def test_waiting_for_a_connection_has_a_limit(start_gate: StartGate) -> None:
    gate = await start_gate(connection=Connection(max_conns=1), timeouts=Timeouts(connect=3.0))
    first, second = await gate.connect(), await gate.connect()
    await first.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    await second.send(gate.request(body=b"{}"))
    async with asyncio.timeout(30):
        while not gate.records.all:
            gate.timers.advance(1)
            await asyncio.sleep(0.001)
    response = await second.response()
    assert (response.status, response.code) == (503, "overloaded")
    assert response.error["message"] == "All 1 connections to the upstream are in use."
    await second.send(gate.request(body=b"now"))
    await peer.answer()
    await first.response()
    assert (await peer.request()).endswith(b"now")


async def test_broken_connection_makes_room_for_one_that_waits(start_gate: StartGate) -> None:
    gate = await start_gate(connection=Connection(max_conns=1))
    first, second = await gate.connect(), await gate.connect()
    await first.send(gate.request(body=b"1"))
    peer = await gate.openai.accept()
    await peer.request()
    await second.send(gate.request(body=b"2"))
    peer.close()
    assert (await first.response()).code == "upstream_broken"
    assert (await (await gate.openai.accept()).request()).endswith(b"2")


async def test_connection_close_of_the_upstream_is_obeyed(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(body=b"1"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.answer(b"ok", b"Connection: close")
    response = await client.response()
    assert response.header(b"Connection") is None  # the client's own goes on
    assert await peer.is_left()
    await client.send(gate.request(body=b"2"))
    assert (await (await gate.openai.accept()).request()).endswith(b"2")
