"""A client that hangs up cancels what the upstream does for it, at once, in every phase."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from llm_proxy.providers import Connection

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Client, Gate, Peer, StartGate

pytestmark = pytest.mark.anyio

ENDS = ["close", "reset", "half_close"]


def leave(client: Client, how: str) -> None:
    getattr(client, how)()


async def only_record_is_of_a_gone_client(gate: Gate, *, status: int, truncated: bool) -> None:
    record = await gate.records.next()
    assert record.error_code == "client_closed"
    assert (record.status_code, record.truncated) == (status, truncated)
    assert len(gate.records.all) == 1


@pytest.mark.parametrize("how", ENDS)
async def test_while_its_token_is_loaded(gate: Gate, how: str) -> None:
    gate.grants.may_load.clear()
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    await gate.grants.is_asked.wait()
    leave(client, how)
    await only_record_is_of_a_gone_client(gate, status=0, truncated=False)
    gate.grants.may_load.set()
    other = await gate.connect()
    await other.send(gate.request(body=b"other"))
    assert (await (await gate.openai.accept()).request()).endswith(b"other")
    assert not gate.openai.has_news()


@pytest.mark.parametrize("how", ENDS)
async def test_while_it_waits_for_a_connection(start_gate: StartGate, how: str) -> None:
    gate = await start_gate(connection=Connection(max_conns=1))
    first = await gate.connect()
    await first.send(gate.request(body=b"first"))
    peer = await gate.openai.accept()
    await peer.request()
    client = await gate.connect()
    await client.send(gate.request(body=b"gone"))
    third = await gate.connect()
    await third.send(gate.request(body=b"third"))
    async with asyncio.timeout(30):
        while len(gate.connections) < 3:
            await asyncio.sleep(0)
    leave(client, how)
    await only_record_is_of_a_gone_client(gate, status=0, truncated=False)
    await peer.answer()
    await first.response()
    assert (await peer.request()).endswith(b"third")
    assert await gate.counted() == 2  # of what went to an upstream


async def test_while_its_connection_is_opened(start_gate: StartGate) -> None:
    """The upstream listens, but accepts nothing: a queue of one that is full."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        gate = await start_gate(
            base_url=f"http://127.0.0.1:{port}", connection=Connection(max_conns=1)
        )
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        client = await gate.connect()
        await client.send(gate.request(body=b"{}"))
        await gate.grants.is_asked.wait()
        await asyncio.sleep(0.01)  # for the opening to begin; the outcome is the same before
        client.reset()
        await only_record_is_of_a_gone_client(gate, status=0, truncated=False)
        for filler in fillers:
            filler.close()


@pytest.mark.parametrize("how", ENDS)
async def test_while_it_waits_for_the_response(gate: Gate, how: str) -> None:
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    leave(client, how)
    assert await peer.is_left()
    await only_record_is_of_a_gone_client(gate, status=0, truncated=False)


@pytest.mark.parametrize("how", ENDS)
async def test_in_the_middle_of_a_stream(gate: Gate, how: str) -> None:
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
    await client.read_until(b"data: 1\n\n")
    leave(client, how)
    assert await peer.is_left()
    await only_record_is_of_a_gone_client(gate, status=200, truncated=True)


@pytest.mark.parametrize("how", ENDS)
async def test_in_the_middle_of_its_upload(gate: Gate, how: str) -> None:
    client = await gate.connect()
    await client.send(gate.request(b"Content-Length: 1000") + b"x" * 100)
    peer = await gate.openai.accept()
    await peer.head()
    await peer.read(100)
    leave(client, how)
    assert await peer.is_left()
    await only_record_is_of_a_gone_client(gate, status=0, truncated=False)


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_while_reading_is_paused(gate: Gate, how: str) -> None:
    """A paused transport sees neither FIN nor RST; the timer wheel asks TCP_INFO."""
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    await client.send(gate.request(body=b"x" * 1000) * 150)
    transport = gate.client_transport()
    async with asyncio.timeout(30):
        while transport.is_reading():
            await asyncio.sleep(0)
    gate.timers.advance(1)
    assert not gate.records.all
    leave(client, how)
    async with asyncio.timeout(30):
        while not gate.records.all:
            gate.timers.advance(0.25)
            await asyncio.sleep(0.01)
    assert await peer.is_left()
    await only_record_is_of_a_gone_client(gate, status=0, truncated=False)


async def test_waiting_requests_of_a_gone_client_are_never_sent(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(body=b"1") + gate.request(body=b"2"))
    peer = await gate.openai.accept()
    assert (await peer.request()).endswith(b"1")
    client.reset()
    assert await peer.is_left()
    assert not gate.openai.has_news()
    assert await gate.counted() == 1


async def test_many_clients_that_leave_cost_only_their_own(gate: Gate) -> None:
    clients = [await gate.connect() for _ in range(20)]
    for number, client in enumerate(clients):
        await client.send(gate.request(body=b"%02d" % number))
    peers: dict[bytes, Peer] = {}
    for _ in clients:
        peer = await gate.openai.accept()
        peers[(await peer.request())[-2:]] = peer
    for client in clients[::2]:
        client.reset()
    for number, client in enumerate(clients):
        peer = peers[b"%02d" % number]
        if number % 2:
            await peer.answer(b"%02d" % number)
            assert (await client.response()).body == b"%02d" % number
        else:
            assert await peer.is_left()
