"""A gateway between raw clients and scripted upstreams, on real sockets of one process.

Test modules get everything from the fixtures `gate` and `start_gate`; the classes are for
annotations. Time stands still for the gateway until a test calls `gate.timers.advance`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
import pytest

from llm_proxy.client_limits import ClientLimits
from llm_proxy.errors import StoreError
from llm_proxy.events.record import ExchangeRecord, RecordFields
from llm_proxy.grants import TokenGrant
from llm_proxy.http1.timers import Timers, Watched
from llm_proxy.limits import LimitDefaults
from llm_proxy.providers import Api, Auth
from llm_proxy.secrets import Secret, new_token, token_digest
from llm_proxy.server.gateway.accounts import Accounts
from llm_proxy.server.gateway.api import Upstream, build_control, build_upstream
from llm_proxy.server.gateway.client_connection import ClientConnection
from llm_proxy.server.gateway.gateway import Gateway
from llm_proxy.server.gateway.limiter import Limiter
from llm_proxy.server.gateway.metrics import Metrics
from llm_proxy.server.gateway.routing import Router
from llm_proxy.server.gateway.tokens import Tokens
from llm_proxy.server.ledger import Ledger
from tests.server.gateway.memory_leases import MemoryLeases

LIMIT_S = 30.0
OPENAI_KEY = "sk-upstream-openai-key"
ANTHROPIC_KEY = "sk-ant-upstream-key"
T = TypeVar("T")


async def within_limit(awaitable: Awaitable[T]) -> T:
    async with asyncio.timeout(LIMIT_S):
        return await awaitable


class Wire:
    """One end of a connection, for exact bytes at exact moments."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await within_limit(self.writer.drain())

    async def send_until_blocked(self, block: bytes) -> int:
        """How much is taken before nothing moves any more."""
        sent = 0
        while True:
            self.writer.write(block)
            sent += len(block)
            assert sent < 256 << 20
            if not await self._is_taken():
                return sent

    async def _is_taken(self) -> bool:
        """Or has nothing of it moved from one look to the next? One may find all standing still."""
        left = -1
        while True:
            try:
                async with asyncio.timeout(0.1):
                    await self.writer.drain()
                return True
            except TimeoutError:
                before, left = left, self.writer.transport.get_write_buffer_size()
            if left == before:
                return False

    async def read(self, size: int) -> bytes:
        return await within_limit(self.reader.readexactly(size))

    async def read_until(self, end: bytes) -> bytes:
        return await within_limit(self.reader.readuntil(end))

    async def read_some(self) -> bytes:
        return await within_limit(self.reader.read(1 << 18))

    async def read_to_end(self) -> bytes:
        return await within_limit(self.reader.read())

    async def is_left(self) -> bool:
        """Waits for the other side to hang up; False when it said something instead."""
        try:
            return await within_limit(self.reader.read(1)) == b""
        except ConnectionError:
            return True

    def stop_reading(self) -> None:
        cast("asyncio.Transport", self.writer.transport).pause_reading()

    def go_on_reading(self) -> None:
        cast("asyncio.Transport", self.writer.transport).resume_reading()

    def half_close(self) -> None:
        self.writer.write_eof()

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Ends with RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    head: bytes
    body: bytes
    framing: str  # "none", "length", "chunked" or "close"

    @property
    def status(self) -> int:
        return int(self.head[9:12])

    @property
    def lines(self) -> list[bytes]:
        """The header lines, as they came."""
        return self.head.split(b"\r\n")[1:-2]

    def all(self, name: bytes) -> list[bytes]:
        fields = [line.partition(b":") for line in self.lines]
        return [value.strip() for key, _, value in fields if key.lower() == name.lower()]

    def header(self, name: bytes) -> bytes | None:
        values = self.all(name)
        assert len(values) < 2, f"{name.decode()} came {len(values)} times"
        return values[0] if values else None

    @property
    def error(self) -> dict[str, Any]:
        envelope = msgspec.json.decode(self.body, type=dict[str, Any])
        assert envelope["type"] == "error"
        assert envelope["request_id"] == (self.header(b"LLM-Proxy-Request-ID") or b"").decode()
        error: dict[str, Any] = envelope["error"]
        return error

    @property
    def code(self) -> str:
        code: str = self.error["code"]
        return code


class Client(Wire):
    async def response(self, *, method: str = "POST") -> Response:
        """Exactly one response; what follows it stays unread."""
        head = await self.read_until(b"\r\n\r\n")
        response = Response(head=head, body=b"", framing="none")
        if method == "HEAD" or response.status < 200 or response.status in (204, 304):
            return response
        if response.header(b"Transfer-Encoding") == b"chunked":
            body, framing = await self._chunks(), "chunked"
        elif (length := response.header(b"Content-Length")) is not None:
            body, framing = await self.read(int(length)), "length"
        else:
            body, framing = await self.read_to_end(), "close"
        return dataclasses.replace(response, body=body, framing=framing)

    async def chunk(self) -> bytes:
        """One chunk as it was framed; empty for the last one."""
        size = int(await self.read_until(b"\r\n"), 16)
        payload = await self.read(size + 2)
        assert payload[-2:] == b"\r\n"
        return payload[:-2]

    async def _chunks(self) -> bytes:
        pieces = []
        while piece := await self.chunk():
            pieces.append(piece)
        return b"".join(pieces)


class Peer(Wire):
    """The upstream's end of one connection from the gateway."""

    async def head(self) -> bytes:
        return await self.read_until(b"\r\n\r\n")

    async def request(self) -> bytes:
        """The head, and a body by its Content-Length or up to its last chunk."""
        head = await self.head()
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                return head + await self.read(int(value))
            if name.lower() == b"transfer-encoding":
                return head + await self.read_until(b"0\r\n\r\n")
        return head

    async def answer(self, body: bytes = b"{}", *lines: bytes, status: bytes = b"200 OK") -> None:
        head = [b"HTTP/1.1 " + status, *lines, b"Content-Length: %d" % len(body), b"", b""]
        await self.send(b"\r\n".join(head) + body)


class ScriptedUpstream:
    def __init__(self) -> None:
        self.peers: asyncio.Queue[Peer] = asyncio.Queue()
        self.all: list[Peer] = []
        self.servers: list[asyncio.Server] = []
        self.port = 0

    async def listen(self, tls: ssl.SSLContext | None = None, *, is_narrow: bool = False) -> None:
        """What is sent to a narrow one soon waits with its sender."""
        sock = socket.create_server(("127.0.0.1", 0))
        if is_narrow:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        server = await asyncio.start_server(self._accept, sock=sock, ssl=tls)
        self.servers.append(server)
        self.port = server.sockets[0].getsockname()[1]

    async def listen_unix(self, path: Path) -> None:
        self.servers.append(await asyncio.start_unix_server(self._accept, path))

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.all.append(peer)
        self.peers.put_nowait(peer)

    async def accept(self) -> Peer:
        return await within_limit(self.peers.get())

    def has_news(self) -> bool:
        """Whether a connection came that was not asked for."""
        return not self.peers.empty()


class MemoryGrants:
    """A GrantSource out of a dict that fails when told, and waits while held."""

    def __init__(self) -> None:
        self.grants: dict[bytes, TokenGrant] = {}
        self.leases = MemoryLeases()
        self.loads: list[bytes] = []
        self.failure: StoreError | None = None
        self.may_load = asyncio.Event()
        self.may_load.set()
        self.is_asked = asyncio.Event()  # set by every load

    async def load(self, digest: bytes) -> TokenGrant | None:
        self.loads.append(digest)
        await asyncio.sleep(0)
        grant = self.grants.get(digest)
        self.is_asked.set()
        await self.may_load.wait()
        if self.failure is not None:
            raise self.failure
        return grant

    def add(self, token: bytes, *, used: int = 0, **changes: Any) -> TokenGrant:
        """`used` of its requests are spent already."""
        values: dict[str, Any] = {
            "token_id": f"token-{len(self.grants) + 1}",
            "project_id": "project-1",
            "is_active": True,
            "project_is_active": True,
            "expires_at": None,
            "max_requests": None,
            "upstream_keys": {"openai": Secret(OPENAI_KEY), "anthropic": Secret(ANTHROPIC_KEY)},
        }
        grant = self.grants[token_digest(token)] = TokenGrant(**(values | changes))
        self.leases.caps[grant.token_id] = grant.max_requests
        self.leases.counts[grant.token_id] = used
        return grant


class RecordList:
    """A RecordSink that keeps what it is told."""

    def __init__(self) -> None:
        self.all: list[ExchangeRecord] = []
        self.parts: list[tuple[int, bytes, str, bool]] = []
        self._new: asyncio.Queue[ExchangeRecord] = asyncio.Queue()

    def new_exchange(self) -> int:
        return len(self.parts) + 1

    def put(self, record: RecordFields) -> None:
        decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=ExchangeRecord)
        self.all.append(decoded)
        self._new.put_nowait(decoded)

    def part(self, exchange: int, body: bytes, *, content_encoding: str, stream: bool) -> None:
        self.parts.append((exchange, body, content_encoding, stream))

    async def next(self) -> ExchangeRecord:
        return await within_limit(self._new.get())


class ManualTimers(Timers):
    """Time stands still until a test moves it."""

    def watch(self, thing: Watched) -> None:
        self._watched.add(thing)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for thing in tuple(self._watched):
            thing.check(self.now)


class Gate:
    """The gateway under test and everything around it."""

    def __init__(self, *, timers: ManualTimers, ledger: Ledger) -> None:
        self.timers = timers
        self.openai = ScriptedUpstream()
        self.anthropic = ScriptedUpstream()
        self.control = ScriptedUpstream()
        self.grants = MemoryGrants()
        self.leases = self.grants.leases
        self.ledger = ledger
        self.records = RecordList()
        self.connections: set[ClientConnection] = set()
        self.clients: list[Client] = []
        self.token = self.new_token()
        self.gateway: Gateway
        self.tokens: Tokens
        self.upstreams: list[Upstream] = []
        self.server: asyncio.Server | None = None
        self.port = 0

    def new_token(self, **changes: Any) -> bytes:
        token = new_token().reveal().encode()
        self.grants.add(token, **changes)
        return token

    async def counted(self) -> int:
        """Requests that were counted for any token, when all is settled."""
        for _ in range(2):
            await self.tokens.accounts.tick()
        return self.leases.counts.total()

    async def serve(self, gateway: Gateway) -> None:
        self.gateway, self.tokens = gateway, gateway.tokens
        self.server = await asyncio.get_running_loop().create_server(
            lambda: ClientConnection(gateway, self.connections), "127.0.0.1", 0
        )
        self.port = self.server.sockets[0].getsockname()[1]

    async def connect(self, sock: socket.socket | None = None) -> Client:
        """`sock`, when given, isn't connected yet."""
        if sock is None:
            streams = await within_limit(asyncio.open_connection("127.0.0.1", self.port))
        else:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
            streams = await asyncio.open_connection(sock=sock)
        client = Client(*streams)
        self.clients.append(client)
        return client

    def request(
        self,
        *lines: bytes,
        method: bytes = b"POST",
        target: bytes = b"/v1/chat/completions",
        body: bytes | None = None,
        token: bytes | None = None,
    ) -> bytes:
        """A request with the good token (b"" for none), then `lines`, then what frames `body`."""
        token = self.token if token is None else token
        head = [b"%b %b HTTP/1.1" % (method, target), b"Host: proxy.test"]
        if token:
            head.append(b"Authorization: Bearer " + token)
        head += lines
        if body is not None:
            head.append(b"Content-Length: %d" % len(body))
        return b"\r\n".join([*head, b"", body or b""])

    async def ask(self, request: bytes) -> Response:
        """The response to a request that no upstream is needed for."""
        client = await self.connect()
        await client.send(request)
        return await client.response(method=request.partition(b" ")[0].decode())

    async def relay(self, request: bytes, answer: bytes) -> tuple[bytes, Response]:
        """What the upstream got, and what the client got, on new connections."""
        client = await self.connect()
        await client.send(request)
        peer = await self.openai.accept()
        received = await peer.request()
        await peer.send(answer)
        return received, await client.response(method=request.partition(b" ")[0].decode())

    def client_transport(self) -> asyncio.Transport:
        """The gateway's end of the only client's connection."""
        (connection,) = self.connections
        return connection.transport

    async def close(self) -> None:
        if self.server is not None:
            await self._close_gateway(self.server)
        await self._close_wires()

    async def _close_gateway(self, server: asyncio.Server) -> None:
        server.close()
        for connection in tuple(self.connections):
            connection.abort()
        for upstream in self.upstreams:
            await upstream.pool.close()
        self.grants.may_load.set()
        self.leases.may_go_on.set()
        await self.tokens.close()
        await self.tokens.accounts.close()
        self.ledger.close()

    async def _close_wires(self) -> None:
        wires: list[Wire] = [*self.clients]
        for upstream in (self.openai, self.anthropic, self.control):
            for server in upstream.servers:
                server.close()
            wires += upstream.all
        for wire in wires:
            wire.writer.transport.abort()
        for _ in range(3):
            await asyncio.sleep(0)


StartGate = Callable[..., Awaitable[Gate]]


def _apis(gate: Gate, tls_host: str | None, changes: dict[str, Any]) -> dict[str, Api]:
    origin = f"https://{tls_host}" if tls_host else "http://127.0.0.1"
    openai = Api(
        name="openai",
        base_url=f"{origin}:{gate.openai.port}",
        allowed_endpoints=("/v1/chat/completions", "/v1/models", "/v1/files/*"),
        allowed_methods=("GET", "POST", "DELETE", "HEAD"),
    )
    anthropic = Api(
        name="anthropic",
        base_url=f"http://127.0.0.1:{gate.anthropic.port}",
        allowed_endpoints=("/v1/messages",),
        allowed_methods=("POST",),
        auth=Auth(header="x-api-key", scheme=""),
    )
    return {"openai": msgspec.structs.replace(openai, **changes), "anthropic": anthropic}


@pytest.fixture
async def start_gate(
    anyio_backend: object, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[StartGate]:
    """Starts a gateway whose api `openai` is as the keyword arguments say."""
    gates: list[Gate] = []

    async def start(
        *,
        max_request_size: int = 200 << 20,
        records: bool = True,
        client_limits: ClientLimits = ClientLimits(),  # noqa: B008 - immutable
        limits: LimitDefaults = LimitDefaults(),  # noqa: B008 - immutable
        debug_headers: bool = False,
        management_is_public: bool = True,
        tls: ssl.SSLContext | None = None,
        tls_host: str | None = None,
        is_narrow: bool = False,
        **openai: Any,
    ) -> Gate:
        timers = ManualTimers(asyncio.get_running_loop())
        folder = tmp_path_factory.mktemp("s")
        gate = Gate(timers=timers, ledger=Ledger.create(folder / "w.ledger", "w"))
        gates.append(gate)
        await gate.openai.listen(tls, is_narrow=is_narrow)
        await gate.anthropic.listen()
        control_socket = folder / "control"
        await gate.control.listen_unix(control_socket)
        apis = _apis(gate, tls_host, openai)
        upstreams = {
            name: build_upstream(api, timers, max_body=max_request_size)
            for name, api in apis.items()
        }
        control = build_control(str(control_socket), timers)
        gate.upstreams = [*upstreams.values(), control]
        gateway = Gateway(
            router=Router(
                upstreams,
                default="openai",
                control=control,
                management_is_public=management_is_public,
            ),
            tokens=Tokens(gate.grants, Accounts(gate.leases, gate.ledger)),
            timers=timers,
            recorder=gate.records if records else None,
            metrics=Metrics(tuple(upstreams)),
            client_limits=client_limits,
            limiter=Limiter(limits),
            debug_headers=debug_headers,
        )
        await gate.serve(gateway)
        return gate

    yield start
    for gate in gates:
        await gate.close()


@pytest.fixture(scope="session")
def new_grants() -> type[MemoryGrants]:
    return MemoryGrants


@pytest.fixture
async def gate(start_gate: StartGate) -> Gate:
    return await start_gate()
