from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest
import trustme

from llm_proxy.server.gateway.client_address import TrustedProxies
from llm_proxy.server.gateway.proxied_listener import MAX_ARRIVALS, ProxiedAcceptor

pytestmark = pytest.mark.anyio
LIMIT_S = 30.0
V1 = b"PROXY TCP4 198.51.100.7 192.0.2.9 4711 443\r\n"
V2 = (
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11"
    + struct.pack("!H", 15)
    + socket.inet_aton("198.51.100.7")
    + socket.inet_aton("192.0.2.9")
    + struct.pack("!HH", 4711, 443)
    + b"\x04\x00\x00"  # a TLV
)
LOCAL = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"


class Echo(asyncio.Protocol):
    """Answers what it is sent, after the address of its client."""

    def __init__(self, client: str) -> None:
        self._client = client.encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._client + b" " + data)


Open = Callable[..., Awaitable[ProxiedAcceptor]]


@pytest.fixture
async def listen(anyio_backend: object) -> AsyncIterator[Open]:
    made: list[ProxiedAcceptor] = []

    async def start(
        sock: socket.socket,
        *,
        trusted: TrustedProxies | None = None,
        context: ssl.SSLContext | None = None,
        head_timeout_s: float = LIMIT_S,
        max_arrivals: int = MAX_ARRIVALS,
    ) -> ProxiedAcceptor:
        sock.setblocking(False)
        acceptor = ProxiedAcceptor(
            sock,
            Echo,
            trusted=trusted,
            context=context,
            head_timeout_s=head_timeout_s,
            max_arrivals=max_arrivals,
        )
        made.append(acceptor)
        await acceptor.start()
        return acceptor

    yield start
    for acceptor in made:
        acceptor.close()
        await acceptor.wait_closed()


@pytest.fixture
def sock() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


async def connect(
    sock: socket.socket,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(*sock.getsockname())


async def ask(sock: socket.socket, *pieces: bytes) -> bytes:
    """What is answered to the pieces, sent one after the other; b"" when it is hung up on."""
    async with asyncio.timeout(LIMIT_S):
        reader, writer = await connect(sock)
        try:
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.001)
            return await reader.read(100)
        except ConnectionResetError:
            return b""
        finally:
            writer.transport.abort()


@pytest.mark.parametrize("header", [V1, V2])
async def test_header_names_the_client(listen: Open, sock: socket.socket, header: bytes) -> None:
    await listen(sock)
    assert await ask(sock, header + b"hello") == b"198.51.100.7 hello"


@pytest.mark.parametrize("header", [V1, V2])
async def test_header_in_single_bytes(listen: Open, sock: socket.socket, header: bytes) -> None:
    await listen(sock)
    pieces = [bytes([byte]) for byte in header]
    assert await ask(sock, *pieces, b"hello") == b"198.51.100.7 hello"


@pytest.mark.parametrize("header", [LOCAL, b"PROXY UNKNOWN\r\n"])
async def test_probe_of_the_proxy_itself_has_its_address(
    listen: Open, sock: socket.socket, header: bytes
) -> None:
    await listen(sock)
    assert await ask(sock, header + b"hello") == b"127.0.0.1 hello"


async def test_connection_without_a_header_is_closed_and_noted_once(
    listen: Open, sock: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    await listen(sock)
    assert await ask(sock, b"GET / HTTP/1.1\r\n") == b""
    assert await ask(sock, b"\x16\x03\x01\x00") == b""
    (record,) = caplog.records
    assert "a connection from 127.0.0.1 was closed: the connection does not begin with" in (
        record.getMessage()
    )


async def test_header_that_does_not_come_ends_the_connection(
    listen: Open, sock: socket.socket
) -> None:
    await listen(sock, head_timeout_s=0.05)
    assert await ask(sock) == b""
    assert await ask(sock, V1[:20]) == b""


async def test_waiting_for_the_rest_costs_no_time(listen: Open, sock: socket.socket) -> None:
    await listen(sock)
    _, writer = await connect(sock)
    writer.write(V2[:20])
    await asyncio.sleep(0.02)
    before = time.process_time()
    await asyncio.sleep(0.2)
    assert time.process_time() - before < 0.1  # a loop that never rests would use all of it
    writer.transport.abort()


async def test_connection_that_ends_at_once_is_no_matter(
    listen: Open, sock: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    await listen(sock)
    for _ in range(3):
        _, writer = await connect(sock)
        writer.close()
        await writer.wait_closed()
    assert await ask(sock, V1 + b"hello") == b"198.51.100.7 hello"
    assert caplog.records == []


async def test_only_trusted_proxies_speak_it(listen: Open, sock: socket.socket) -> None:
    await listen(sock, trusted=TrustedProxies(["10.0.0.0/8"]))
    assert await ask(sock, b"hello") == b"127.0.0.1 hello"
    assert await ask(sock, V1) == b"127.0.0.1 " + V1  # which HTTP will refuse


async def test_trusted_proxy_must_speak_it(listen: Open, sock: socket.socket) -> None:
    await listen(sock, trusted=TrustedProxies(["127.0.0.0/8"]))
    assert await ask(sock, V1 + b"hello") == b"198.51.100.7 hello"
    assert await ask(sock, b"hello") == b""


async def test_header_comes_before_tls(listen: Open, sock: socket.socket) -> None:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    await listen(sock, context=server)
    loop = asyncio.get_running_loop()
    plain = socket.socket()
    plain.setblocking(False)
    async with asyncio.timeout(LIMIT_S):
        await loop.sock_connect(plain, sock.getsockname())
        await loop.sock_sendall(plain, V2)
        reader, writer = await asyncio.open_connection(
            sock=plain, ssl=client, server_hostname="localhost"
        )
        writer.write(b"hello")
        assert await reader.read(100) == b"198.51.100.7 hello"
        writer.transport.abort()


async def test_failed_handshake_is_the_clients_affair(
    listen: Open, sock: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(server)
    await listen(sock, context=server, head_timeout_s=0.05)
    await ask(sock, V1 + b"GET / HTTP/1.1\r\n\r\n")
    assert await ask(sock, V1) == b""  # it never shakes hands
    assert caplog.records == []


async def test_over_a_unix_socket(listen: Open, tmp_path: Path) -> None:
    path = os.path.relpath(tmp_path / "s")  # short enough for an address
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen()
    await listen(sock, trusted=TrustedProxies(["unix"]))
    for header, answer in [(V1, b"198.51.100.7 hello"), (LOCAL, b"unix hello")]:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(header + b"hello")
        async with asyncio.timeout(LIMIT_S):
            assert await reader.read(100) == answer
        writer.transport.abort()


async def test_silent_connections_keep_nobody_out(listen: Open, sock: socket.socket) -> None:
    await listen(sock, max_arrivals=2)
    silent = [await connect(sock) for _ in range(4)]
    async with asyncio.timeout(LIMIT_S):
        assert await ask(sock, V1 + b"hello") == b"198.51.100.7 hello"
        ends = [await reader.read() for reader, _ in silent[:2]]
    assert ends == [b"", b""]  # the oldest had to go
    silent[-1][1].write(V1 + b"late")
    async with asyncio.timeout(LIMIT_S):
        assert await silent[-1][0].read(100) == b"198.51.100.7 late"
    for _, writer in silent:
        writer.close()


async def test_without_descriptors_it_rests_and_then_goes_on(
    listen: Open, sock: socket.socket
) -> None:
    await listen(sock)
    client = socket.socket()
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await asyncio.sleep(0)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        await loop.sock_connect(client, sock.getsockname())
        await loop.sock_sendall(client, V1 + b"hello")
        spent = time.process_time()
        await asyncio.sleep(0.1)
        assert time.process_time() - spent < 0.05
        with pytest.raises(OSError) as caught:
            os.dup(0)
        assert caught.value.errno == errno.EMFILE
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    async with asyncio.timeout(LIMIT_S):
        with client:
            assert await loop.sock_recv(client, 100) == b"198.51.100.7 hello"


async def test_the_end_gives_up_what_waits(listen: Open, sock: socket.socket) -> None:
    acceptor = await listen(sock)
    address = sock.getsockname()
    reader, writer = await connect(sock)
    await asyncio.sleep(0.01)
    acceptor.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)
    writer.write(V1 + b"hello")  # accepted before: it is served yet
    async with asyncio.timeout(LIMIT_S):
        assert await reader.read(100) == b"198.51.100.7 hello"
    writer.transport.abort()


async def test_the_end_closes_what_said_nothing(listen: Open, sock: socket.socket) -> None:
    acceptor = await listen(sock)
    reader, writer = await connect(sock)
    await asyncio.sleep(0.01)
    acceptor.close()
    await acceptor.wait_closed()
    async with asyncio.timeout(LIMIT_S):
        assert await reader.read(100) == b""
    writer.transport.abort()
