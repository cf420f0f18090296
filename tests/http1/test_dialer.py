"""Several addresses of one host are 127.0.0.1, 127.0.0.2 and ::1, at one port."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import cast

import pytest
import trustme

from llm_proxy.http1.connection import UpstreamError
from llm_proxy.http1.dialer import STAGGER_S, Dialer
from llm_proxy.http1.origin import Origin, Proxy
from llm_proxy.http1.resolver import Resolver
from tests.http1.tunnel_proxy import TunnelProxy

pytestmark = pytest.mark.anyio

LIMIT_S = 30.0
REFUSED = "The upstream refused the connection."


class Client(asyncio.Protocol):
    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.received = b""
        self.has_news = asyncio.Event()
        self.is_lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.has_news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost.set()

    @property
    def sock(self) -> socket.socket:
        return cast("socket.socket", self.transport.get_extra_info("socket"))


class World:
    """A host of several addresses, of which some listen."""

    def __init__(self) -> None:
        self.addresses = ["127.0.0.2", "127.0.0.1"]
        self.ca = trustme.CA()
        self.proxy = TunnelProxy()
        self.has_accepted = asyncio.Event()
        self.accepted: list[str] = []  # the addresses that were connected to
        self.greeting = b""  # what is sent to whoever connects
        self.clients: list[Client] = []
        self.readers: list[asyncio.StreamReader] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.servers: list[asyncio.Server] = []
        self.port = 0

    def server_tls(self, name: str = "api.test") -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(name).configure_cert(context)
        return context

    def client_tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context

    async def listen(self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        server = await asyncio.start_server(self._accept, host, self.port, ssl=tls)
        self.servers.append(server)
        self.port = server.sockets[0].getsockname()[1]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted.append(writer.get_extra_info("sockname")[0])
        self.readers.append(reader)
        self.writers.append(writer)
        writer.write(self.greeting)
        self.has_accepted.set()

    async def writer(self) -> asyncio.StreamWriter:
        async with asyncio.timeout(LIMIT_S):
            await self.has_accepted.wait()
        return self.writers[0]

    def dialer(
        self,
        *,
        tls: bool = False,
        proxy: Proxy | None = None,
        timeout_s: float = LIMIT_S,
        lookup: Callable[[str], list[str]] | None = None,
        **options: float,
    ) -> Dialer:
        origin = Origin(
            host="api.test",
            port=self.port,
            tls=self.client_tls() if tls else None,
            proxy=proxy,
        )
        resolver = Resolver(lookup or (lambda _: self.addresses))
        return Dialer(origin, timeout_s=timeout_s, resolver=resolver, **options)

    async def dial(self, dialer: Dialer) -> Client:
        client = await dialer.dial(Client)
        self.clients.append(client)
        return client

    async def failure(self, dialer: Dialer) -> str:
        with pytest.raises(UpstreamError) as caught:
            await self.dial(dialer)
        assert caught.value.code == "upstream_unreachable"
        return str(caught.value)

    async def close(self) -> None:
        for server in self.servers:
            server.close()
        for client in self.clients:
            client.transport.abort()
        for writer in self.writers:
            writer.transport.abort()
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.fixture
async def world(anyio_backend: object) -> AsyncIterator[World]:
    world = World()
    await world.listen()
    yield world
    await world.close()


@pytest.fixture
async def tunnel(anyio_backend: object) -> AsyncIterator[TunnelProxy]:
    proxy = TunnelProxy()
    yield proxy
    await proxy.close()


@contextmanager
def black_hole(host: str, port: int) -> Iterator[None]:
    """An address that doesn't answer: its queue of connections is full."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex((host, port))
        yield


def clock() -> float:
    return asyncio.get_running_loop().time()


async def test_refused_address_is_passed_over_at_once(world: World) -> None:
    started_at = clock()
    client = await world.dial(world.dialer())
    assert client.sock.getpeername()[0] == "127.0.0.1"
    assert clock() - started_at < STAGGER_S


async def test_lack_of_descriptors_is_not_blamed_on_the_upstream(world: World) -> None:
    dialer = world.dialer()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        with pytest.raises(UpstreamError, match="no file descriptor") as caught:
            await dialer.dial(Client)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert caught.value.code == "overloaded"


async def test_look_up_that_could_not_be_made_is_not_blamed_on_the_upstream(world: World) -> None:
    def lack(host: str) -> list[str]:
        raise OSError(errno.EMFILE, "Too many open files")

    with pytest.raises(UpstreamError, match="no file descriptor") as caught:
        await world.dialer(lookup=lack).dial(Client)
    assert caught.value.code == "overloaded"


async def test_other_family_is_tried_too(world: World) -> None:
    world.addresses = ["::1", "127.0.0.1"]
    assert (await world.dial(world.dialer())).sock.getpeername()[0] == "127.0.0.1"
    await world.listen("::1")
    assert (await world.dial(world.dialer())).sock.getpeername()[0] == "::1"


async def test_silent_address_loses_after_the_stagger_and_comes_last_then(world: World) -> None:
    with black_hole("127.0.0.2", world.port):
        dialer = world.dialer()
        started_at = clock()
        await world.dial(dialer)
        assert STAGGER_S <= clock() - started_at < 4 * STAGGER_S
        started_at = clock()
        await world.dial(dialer)
        assert clock() - started_at < STAGGER_S


async def test_every_address_gets_its_turn_in_a_short_time(world: World) -> None:
    world.addresses = ["127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.1"]
    with (
        black_hole("127.0.0.2", world.port),
        black_hole("127.0.0.3", world.port),
        black_hole("127.0.0.4", world.port),
    ):
        await world.dial(world.dialer(timeout_s=0.2))


@pytest.mark.parametrize(("lately_s", "first"), [(30.0, "127.0.0.1"), (0.0, "127.0.0.2")])
async def test_failed_address_comes_last_for_a_while(
    world: World, lately_s: float, first: str
) -> None:
    dialer = world.dialer(lately_s=lately_s)
    await world.dial(dialer)
    await world.listen("127.0.0.2")
    assert (await world.dial(dialer)).sock.getpeername()[0] == first


async def test_all_addresses_refused_is_told(world: World) -> None:
    world.servers[0].close()
    assert await world.failure(world.dialer()) == REFUSED


async def test_all_addresses_silent_is_told(world: World) -> None:
    world.addresses = ["127.0.0.2", "127.0.0.3"]
    with black_hole("127.0.0.2", world.port), black_hole("127.0.0.3", world.port):
        assert await world.failure(world.dialer(timeout_s=0.05)) == (
            "Connecting to the upstream took longer than 0.05 s."
        )


async def test_unknown_name_is_told(world: World) -> None:
    def fail(host: str) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    assert await world.failure(world.dialer(lookup=fail)) == (
        "The upstream's host name could not be resolved."
    )


async def test_hung_look_up_is_told(world: World) -> None:
    may_end = threading.Event()

    def hang(host: str) -> list[str]:
        may_end.wait(LIMIT_S)
        return []

    assert await world.failure(world.dialer(lookup=hang, timeout_s=0.05)) == (
        "Resolving the name of the upstream took longer than 0.05 s."
    )
    may_end.set()


async def test_small_pieces_are_sent_at_once(world: World) -> None:
    client = await world.dial(world.dialer())
    assert client.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


async def test_server_that_speaks_first_is_no_upstream(world: World) -> None:
    world.addresses = ["127.0.0.1"]
    world.greeting = b"220 mail.test ESMTP\r\n"
    try:
        client = await world.dial(world.dialer())
    except UpstreamError as exc:
        assert str(exc) == "The upstream could not be reached."
    else:  # its greeting came later: then the owner gets it, and hangs up
        async with asyncio.timeout(LIMIT_S):
            await client.has_news.wait()


async def test_connecting_is_given_up_with_whoever_wanted_it(world: World) -> None:
    with black_hole("127.0.0.2", world.port):
        world.addresses = ["127.0.0.2"]
        dialing = asyncio.create_task(world.dial(world.dialer()))
        await asyncio.sleep(0.01)
        dialing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialing


# TLS.


async def secure(world: World, *addresses: str, name: str = "api.test") -> None:
    world.servers.pop().close()
    world.port = 0
    for address in addresses:
        await world.listen(address, world.server_tls(name))


async def test_tls_is_spoken_with_the_name(world: World) -> None:
    await secure(world, "127.0.0.1")
    client = await world.dial(world.dialer(tls=True))
    assert client.transport.get_extra_info("ssl_object").server_hostname == "api.test"
    client.transport.write(b"x")


async def test_failed_handshake_moves_on_to_the_next_address(world: World) -> None:
    await secure(world, "127.0.0.1")
    await world.listen("127.0.0.2", world.server_tls("other.test"))
    dialer = world.dialer(tls=True)
    assert (await world.dial(dialer)).sock.getpeername()[0] == "127.0.0.1"
    world.accepted.clear()
    await world.dial(dialer)
    assert "127.0.0.2" not in world.accepted


@pytest.mark.parametrize("second", ["other.test", None])
async def test_certificate_error_is_told_even_when_another_address_refuses(
    world: World, second: str | None
) -> None:
    await secure(world, "127.0.0.2", name="other.test")
    if second is not None:
        await world.listen("127.0.0.1", world.server_tls(second))
    reason = await world.failure(world.dialer(tls=True))
    assert reason.startswith("The upstream's certificate is not trusted: ")
    assert "not valid for 'api.test'" in reason


async def test_silence_in_a_handshake_leaves_time_for_the_next_address(world: World) -> None:
    await secure(world, "127.0.0.1")
    with socket.socket() as silent:
        silent.bind(("127.0.0.2", world.port))
        silent.listen()
        client = await world.dial(world.dialer(tls=True, timeout_s=1.0, min_handshake_s=0.05))
    assert client.sock.getpeername()[0] == "127.0.0.1"


async def test_silence_in_the_only_handshake_is_told(world: World) -> None:
    world.addresses = ["127.0.0.1"]
    assert await world.failure(world.dialer(tls=True, timeout_s=0.05)) == (
        "Connecting to the upstream took longer than 0.05 s."
    )
    async with asyncio.timeout(LIMIT_S):
        with suppress(ConnectionError):
            await world.readers[0].read()  # ends, since our end was closed


async def test_upstream_without_tls_is_told(world: World) -> None:
    world.addresses = ["127.0.0.1"]
    world.greeting = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    assert (await world.failure(world.dialer(tls=True))).startswith("TLS with the upstream failed")


# Through a proxy.


async def through(world: World, tunnel: TunnelProxy, tls: ssl.SSLContext | None = None) -> Proxy:
    if not tunnel.port:
        await tunnel.listen()
    world.addresses = ["127.0.0.1"]
    return Proxy(host="proxy.test", port=tunnel.port, tls=tls)


async def test_tunnel_leads_to_the_upstream(world: World, tunnel: TunnelProxy) -> None:
    client = await world.dial(world.dialer(proxy=await through(world, tunnel)))
    client.transport.write(b"question")
    (await world.writer()).write(b"answer")
    async with asyncio.timeout(LIMIT_S):
        await client.has_news.wait()
    assert client.received == b"answer"
    assert tunnel.heads[0].startswith(b"CONNECT api.test:%d HTTP/1.1\r\n" % world.port)


@pytest.mark.parametrize("is_tls_proxy", [False, True])
async def test_tls_with_the_upstream_is_spoken_inside(
    world: World, tunnel: TunnelProxy, is_tls_proxy: bool
) -> None:
    await secure(world, "127.0.0.1")
    tls = None
    if is_tls_proxy:
        await tunnel.listen(world.server_tls("proxy.test"))
        tls = world.client_tls()
    proxy = await through(world, tunnel, tls)
    client = await world.dial(world.dialer(tls=True, proxy=proxy))
    assert client.transport.get_extra_info("ssl_object").server_hostname == "api.test"
    (await world.writer()).write(b"x" * 1_000_000)
    async with asyncio.timeout(LIMIT_S):
        while len(client.received) < 1_000_000:
            client.has_news.clear()
            await client.has_news.wait()


async def test_upstreams_name_is_left_to_the_proxy(world: World, tunnel: TunnelProxy) -> None:
    asked: list[str] = []

    def look_up(host: str) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    await world.dial(world.dialer(proxy=await through(world, tunnel), lookup=look_up))
    assert asked == ["proxy.test"]


async def test_proxy_that_fails_is_named(world: World, tunnel: TunnelProxy) -> None:
    proxy = await through(world, tunnel)
    name = f"proxy.test:{tunnel.port}"
    tunnel.answer = b"HTTP/1.1 403 Forbidden\r\n\r\n"
    assert await world.failure(world.dialer(proxy=proxy)) == (
        f"The proxy {name} answered 403 to CONNECT, so there is no tunnel."
    )
    tunnel.is_silent = True
    assert await world.failure(world.dialer(proxy=proxy, timeout_s=0.05)) == (
        f"Connecting through the proxy {name} took longer than 0.05 s."
    )
    await tunnel.close()
    assert await world.failure(world.dialer(proxy=proxy)) == (
        f"The proxy {name} refused the connection."
    )


async def test_certificate_of_a_proxy_is_checked(world: World, tunnel: TunnelProxy) -> None:
    await tunnel.listen(world.server_tls("other.test"))
    proxy = await through(world, tunnel, world.client_tls())
    reason = await world.failure(world.dialer(proxy=proxy))
    assert reason.startswith(f"The proxy {proxy}'s certificate is not trusted: ")


async def test_unix_socket_is_dialled(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = str(tmp_path_factory.mktemp("s") / "s")
    dialer = Dialer(Origin(host="x", unix_path=path), timeout_s=LIMIT_S, resolver=Resolver())
    with pytest.raises(UpstreamError, match="The upstream could not be reached"):
        await dialer.dial(Client)
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(asyncio.Protocol, path)
    client = await dialer.dial(Client)
    assert client.transport.get_extra_info("peername") == path
    client.transport.abort()
    server.close()
    await server.wait_closed()
