from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest
import trustme

from llm_proxy.server.gateway.listener import Listeners, ServerAcceptor

pytestmark = pytest.mark.anyio
LIMIT_S = 30.0


class Echo(asyncio.Protocol):
    """Answers what it is sent, after the address it was made for."""

    def __init__(self, name: str = "") -> None:
        self._name = name.encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._name + data)


async def ask(
    sock: socket.socket | str, data: bytes, context: ssl.SSLContext | None = None
) -> bytes:
    async with asyncio.timeout(LIMIT_S):
        if isinstance(sock, str):
            reader, writer = await asyncio.open_unix_connection(sock)
        else:
            name = None if context is None else "localhost"
            host, port = sock.getsockname()
            reader, writer = await asyncio.open_connection(
                host, port, ssl=context, server_hostname=name
            )
        writer.write(data)
        try:
            return await reader.read(100)
        finally:
            writer.transport.abort()


@pytest.fixture
async def opened(anyio_backend: object) -> AsyncIterator[Callable[..., Awaitable[Listeners]]]:
    made: list[Listeners] = []

    async def open_listeners(
        *socks: socket.socket,
        make: Callable[[], asyncio.Protocol] = Echo,
        context: ssl.SSLContext | None = None,
        handshake_timeout_s: float = LIMIT_S,
    ) -> Listeners:
        acceptors = [
            ServerAcceptor(sock, make, context=context, handshake_timeout_s=handshake_timeout_s)
            for sock in socks
        ]
        listeners = Listeners(acceptors)
        made.append(listeners)
        await listeners.open()
        return listeners

    yield open_listeners
    for listeners in made:
        listeners.close()
        await listeners.wait_closed()


@contextmanager
def few_descriptors(left: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def listen() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


async def test_small_packets_leave_at_once(opened: Callable[..., Awaitable[Listeners]]) -> None:
    options: list[int] = []

    class Looking(Echo):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            sock = transport.get_extra_info("socket")
            options.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    sock = listen()
    await opened(sock, make=Looking)
    assert await ask(sock, b"x") == b"x"
    assert options == [1]


async def test_unix_socket_is_served_and_its_file_stays(
    opened: Callable[..., Awaitable[Listeners]], tmp_path: Path
) -> None:
    path = os.path.relpath(tmp_path / "s")  # short enough for an address
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen()
    listeners = await opened(sock)
    assert await ask(path, b"x") == b"x"
    listeners.close()
    assert (tmp_path / "s").is_socket()  # other workers listen on it


async def test_several_sockets_are_served_and_refuse_once_closed(
    opened: Callable[..., Awaitable[Listeners]],
) -> None:
    first, second = listen(), listen()
    addresses = [first.getsockname(), second.getsockname()]
    listeners = await opened(first, second)
    assert [await ask(sock, b"x") for sock in (first, second)] == [b"x", b"x"]
    listeners.close()
    await listeners.wait_closed()
    for address in addresses:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)


async def test_tls_from_1_2_on(opened: Callable[..., Awaitable[Listeners]]) -> None:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    sock = listen()
    await opened(sock, context=server)
    assert await ask(sock, b"x", client) == b"x"


async def test_client_that_never_shakes_hands_is_left(
    opened: Callable[..., Awaitable[Listeners]], caplog: pytest.LogCaptureFixture
) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(server)
    sock = listen()
    await opened(sock, context=server, handshake_timeout_s=0.05)
    assert await ask(sock, b"") == b""
    await ask(sock, b"GET / HTTP/1.1\r\n\r\n")  # an alert, or nothing
    assert caplog.records == []


async def test_accepting_pauses_while_descriptors_are_short(
    opened: Callable[..., Awaitable[Listeners]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    sock, kept = listen(), socket.socket()
    with few_descriptors(30):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        listeners = await opened(sock)
        listeners.check(0.0)
        established = await asyncio.open_connection(*sock.getsockname())
        occupied = [os.dup(0) for _ in range(30 - limit // 8)]
        listeners.check(1.0)
        listeners.check(2.0)
        assert len(caplog.records) == 1
        assert f"nearly all of the {limit} files" in caplog.text
        kept.setblocking(False)
        await asyncio.get_running_loop().sock_connect(kept, sock.getsockname())  # it waits
        established[1].write(b"x")
        assert await established[0].read(1) == b"x"  # those that were there go on
        established[1].transport.abort()
        for number in occupied:
            os.close(number)
        await _until_resumed(listeners)
        with kept:
            await asyncio.get_running_loop().sock_sendall(kept, b"y")
            async with asyncio.timeout(LIMIT_S):
                assert await asyncio.get_running_loop().sock_recv(kept, 1) == b"y"


async def _until_resumed(listeners: Listeners) -> None:
    async with asyncio.timeout(LIMIT_S):
        for second in range(3, 10):
            listeners.check(float(second))
            await asyncio.sleep(0)


async def test_nothing_is_resumed_after_the_end(
    opened: Callable[..., Awaitable[Listeners]],
) -> None:
    sock = listen()
    address = sock.getsockname()
    with few_descriptors(30):
        listeners = await opened(sock)
        occupied = [os.dup(0) for _ in range(25)]
        listeners.check(0.0)
        for number in occupied:
            os.close(number)
        listeners.check(1.0)
        listeners.close()
        await listeners.wait_closed()
        listeners.check(2.0)
        await asyncio.sleep(0)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)


async def test_pausing_leaks_no_descriptor(opened: Callable[..., Awaitable[Listeners]]) -> None:
    acceptor = ServerAcceptor(listen(), Echo, context=None, handshake_timeout_s=1)
    await acceptor.start()
    free = os.dup(0)
    os.close(free)
    for _ in range(5):
        acceptor.pause()
        await asyncio.sleep(0.01)
        await acceptor.start()
    later = os.dup(0)
    os.close(later)
    assert later <= free + 1
    acceptor.close()


class Stubborn:
    """An acceptor that starts once, and then fails a while."""

    def __init__(self, failures: int) -> None:
        self._failures = failures
        self.is_started = False

    async def start(self) -> None:
        await asyncio.sleep(0)
        if self._failures > 0 and not self.is_started and self._was_started:
            self._failures -= 1
            raise OSError("no memory")
        self.is_started = self._was_started = True

    _was_started = False

    def pause(self) -> None:
        self.is_started = False

    def close(self) -> None:
        self.pause()

    async def wait_closed(self) -> None:
        return


async def test_failed_resumption_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    acceptor = Stubborn(failures=2)
    with few_descriptors(30):
        listeners = Listeners([acceptor])
        await listeners.open()
        occupied = [os.dup(0) for _ in range(30)]
        with pytest.raises(OSError, match="Too many open files"):
            os.dup(0)
        listeners.check(0.0)
        assert not acceptor.is_started
        for number in occupied:
            os.close(number)
        for second in range(1, 10):
            listeners.check(float(second))
            await asyncio.sleep(0.001)
    assert acceptor.is_started
    assert caplog.text.count("can't be accepted again yet: no memory") == 2
    listeners.close()
    await listeners.wait_closed()


async def test_socket_that_can_not_be_served_leaks_nothing() -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    free = os.dup(0)
    os.close(free)
    acceptor = ServerAcceptor(sock, Echo, context=None, handshake_timeout_s=1)
    with pytest.raises(ValueError, match="Stream"):
        await acceptor.start()
    acceptor.close()
    again = os.dup(0)
    os.close(again)
    assert again <= free
