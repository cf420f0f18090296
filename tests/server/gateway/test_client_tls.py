"""Clients over TLS: the same promises, on a transport that can't half-close."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trustme

from llm_proxy.server.gateway.client_connection import MAX_TLS_WRITE, ClientConnection
from llm_proxy.server.gateway.listener import Listeners, ServerAcceptor
from tests.server.gateway.conftest import Client, Gate, StartGate, within_limit

pytestmark = pytest.mark.anyio
BODY = b"x" * (4 << 20)

Connect = Callable[[Gate], Awaitable[Client]]


@pytest.fixture
async def connect_tls(anyio_backend: object) -> AsyncIterator[Connect]:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    opened: list[Listeners] = []

    async def connect(gate: Gate) -> Client:
        sock = socket.create_server(("127.0.0.1", 0))
        acceptor = ServerAcceptor(
            sock,
            lambda: ClientConnection(gate.gateway, gate.connections),
            context=server,
            handshake_timeout_s=5,
        )
        opened.append(Listeners([acceptor]))
        await opened[-1].open()
        streams = await within_limit(
            asyncio.open_connection(*sock.getsockname(), ssl=client, server_hostname="localhost")
        )
        gate.clients.append(Client(*streams))
        return gate.clients[-1]

    yield connect
    for listeners in opened:
        listeners.close()
        await listeners.wait_closed()


async def test_large_bodies_go_both_ways(connect_tls: Connect, gate: Gate) -> None:
    client = await connect_tls(gate)
    for _ in range(2):  # on one connection
        sending = asyncio.create_task(client.send(gate.request(body=BODY)))
        peer = await gate.openai.accept()
        assert (await peer.request()).endswith(b"\r\n\r\n" + BODY)
        await sending
        head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY)
        await peer.send(head + BODY)
        assert (await client.response()).body == BODY


async def test_client_that_does_not_read_stops_the_upstream(
    connect_tls: Connect, gate: Gate
) -> None:
    client = await connect_tls(gate)
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    client.stop_reading()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (4 * len(BODY)))
    sending = asyncio.create_task(peer.send(BODY * 4))
    await asyncio.sleep(0.2)
    assert not sending.done()
    assert gate.client_transport().get_write_buffer_size() <= 1 << 20
    client.go_on_reading()
    assert (await client.response()).body == BODY * 4
    await sending


async def test_answer_to_an_upload_that_is_refused_arrives(
    connect_tls: Connect, start_gate: StartGate
) -> None:
    gate = await start_gate(max_request_size=1000)
    client = await connect_tls(gate)
    await client.send(gate.request(body=b"x" * 100_000)[:-50_000])
    answer = await client.response()
    assert (answer.status, answer.code) == (413, "body_too_large")


async def test_client_that_hangs_up_cancels_the_upstream(connect_tls: Connect, gate: Gate) -> None:
    client = await connect_tls(gate)
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    client.close()
    assert await peer.is_left()


class TlsTransport(asyncio.Transport):
    """Remembers what it was told to encrypt at once."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def can_write_eof(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


async def test_little_is_encrypted_before_its_client_reads(gate: Gate) -> None:
    connection, transport = ClientConnection(gate.gateway, set()), TlsTransport()
    connection.connection_made(transport)
    connection.write(BODY)
    connection.connection_lost(None)
    assert b"".join(transport.written) == BODY
    assert max(map(len, transport.written)) <= MAX_TLS_WRITE
