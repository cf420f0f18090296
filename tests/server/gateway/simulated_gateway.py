"""A whole gateway without a network: simulated clients before it, simulated upstreams behind it.

What clients sent is remembered as `Planned` requests, what they got is parsed by the strict reader
below, which shares nothing with the code under test.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from llm_proxy.events.record import ExchangeRecord, RecordFields
from llm_proxy.grants import TokenGrant
from llm_proxy.limits import LimitDefaults, Limits
from llm_proxy.providers import Api, CircuitBreaker, Connection, Retry, Timeouts
from llm_proxy.secrets import Secret, new_token, token_digest
from llm_proxy.server.gateway.accounts import Accounts
from llm_proxy.server.gateway.api import Upstream, build_control, build_upstream
from llm_proxy.server.gateway.client_connection import ClientConnection
from llm_proxy.server.gateway.gateway import Gateway
from llm_proxy.server.gateway.limiter import Limiter
from llm_proxy.server.gateway.metrics import Metrics
from llm_proxy.server.gateway.routing import Router
from llm_proxy.server.gateway.tokens import Tokens
from tests.http1.scripted_answers import Answer
from tests.http1.simulation import Link, SimulatedLoop, SimulatedTimers
from tests.server.gateway.memory_leases import MemoryLeases, MemoryLedger

UPSTREAM_KEY: Final = "sk-upstream-key-0123456789"
LARGEST_BODY: Final = 300_000
TOKEN: Final = new_token().reveal().encode()
UNKNOWN_TOKEN: Final = new_token().reveal().encode()


class OneGrant:
    """A GrantSource that knows `TOKEN`."""

    def __init__(self) -> None:
        self.leases = MemoryLeases()

    async def load(self, digest: bytes) -> TokenGrant | None:
        if digest != token_digest(TOKEN):
            return None
        self.leases.caps["token-1"] = None
        return TokenGrant(
            token_id="token-1",
            project_id="project-1",
            is_active=True,
            project_is_active=True,
            expires_at=None,
            max_requests=None,
            upstream_keys={"openai": Secret(UPSTREAM_KEY)},
        )


class Records:
    def __init__(self) -> None:
        self.all: list[ExchangeRecord] = []
        self._exchange = 0

    def new_exchange(self) -> int:
        self._exchange += 1
        return self._exchange

    def put(self, record: RecordFields) -> None:
        self.all.append(msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=ExchangeRecord))

    def part(self, exchange: int, body: bytes, *, content_encoding: str, stream: bool) -> None:
        assert 0 < exchange <= self._exchange


@dataclasses.dataclass
class Planned:
    """A request, and what must become of it."""

    id: bytes
    method: bytes
    raw: bytes
    body: bytes = b""
    code: str = ""  # of its refusal; empty: it is forwarded
    is_control: bool = False
    keeps_alive: bool = True
    may_be_repeated: bool = False  # idempotent, by its method or a key
    end: int = 0  # where it ends in all that its client sends


class SimulatedClient:
    def __init__(self, link: Link) -> None:
        self.link = link
        self.planned: list[Planned] = []
        self.outgoing = bytearray()
        self.sent = 0  # bytes
        self.is_poisoned = False  # what was planned is followed by bytes that are no request
        self.has_hung_up = False
        self._parsed: tuple[object, list[Received]] = (None, [])

    def plan(self, request: Planned) -> None:
        self.outgoing += request.raw
        request.end = self.sent + len(self.outgoing)
        self.planned.append(request)

    def send(self, size: int, piece: int) -> None:
        data = bytes(self.outgoing[:size])
        del self.outgoing[:size]
        self.sent += len(data)
        self.link.piece = piece
        self.link.send(data)

    @property
    def can_send(self) -> bool:
        return bool(self.outgoing) and not (self.link.is_closed or self.has_hung_up)

    def answers(self) -> list[Received]:
        end = "" if self.has_hung_up else self.link.end  # it did not wait for that
        state = (len(self.link.received), len(self.planned), end)
        if self._parsed[0] != state:
            methods = [request.method for request in self.planned]
            self._parsed = state, parse_answers(bytes(self.link.received), methods, end)
        return self._parsed[1]


class SimulatedGateway:
    def __init__(self, *, breaker_failures: int, max_concurrent: int) -> None:
        self.loop = SimulatedLoop()
        self.records = Records()
        self.connections: set[ClientConnection] = set()
        self.clients: list[SimulatedClient] = []
        self.answers: dict[tuple[Link, int], Answer] = {}  # by link and number of the request
        self._parsed: dict[Link, tuple[int, list[Received]]] = {}
        self._max_concurrent = max_concurrent
        self._failures = breaker_failures
        self.loop.do(self._build)

    def _build(self) -> None:
        self.timers = SimulatedTimers(self.loop)
        api = Api(
            name="openai",
            base_url="http://192.0.2.1",
            allowed_endpoints=("/v1/chat/completions", "/v1/models", "/v1/files/*"),
            allowed_methods=("GET", "POST", "DELETE", "HEAD"),
            timeouts=Timeouts(connect=5.0, response_header=20.0, idle=30.0),
            connection=Connection(max_idle_conns=2, max_conns=4, idle_timeout=60.0),
            retry=Retry(attempts=1),
            circuit_breaker=CircuitBreaker(failures=self._failures),
        )
        self.upstreams = [
            build_upstream(api, self.timers, max_body=LARGEST_BODY),
            build_control("/nowhere/control", self.timers),
        ]
        self.gateway = self._gateway(*self.upstreams)

    def _gateway(self, openai: Upstream, control: Upstream) -> Gateway:
        grants = OneGrant()
        return Gateway(
            router=Router(
                {"openai": openai}, default="openai", control=control, management_is_public=True
            ),
            tokens=Tokens(grants, Accounts(grants.leases, MemoryLedger())),
            timers=self.timers,
            recorder=self.records,
            metrics=Metrics(),
            limiter=Limiter(LimitDefaults(total=Limits(max_concurrent=self._max_concurrent))),
        )

    def connect(self) -> SimulatedClient:
        link = Link(self.loop, ClientConnection(self.gateway, self.connections))
        client = SimulatedClient(link)
        self.clients.append(client)
        self.loop.do(link.open)
        return client

    def requests_of(self, link: Link) -> list[Received]:
        size, requests = self._parsed.get(link, (0, []))
        if size != len(link.received):
            requests = parse_requests(bytes(link.received))
            self._parsed[link] = len(link.received), requests
        return requests

    def planned(self, request_id: bytes) -> tuple[SimulatedClient, Planned]:
        return next(
            (client, request)
            for client in self.clients
            for request in client.planned
            if request.id == request_id
        )

    def close(self) -> None:
        self.loop.run_until_complete(self._close_all())
        self.loop.close()

    async def _close_all(self) -> None:
        for upstream in self.upstreams:
            await upstream.pool.close()
        await self.gateway.tokens.close()


# What came over a connection, read by the book.


@dataclasses.dataclass
class Received:
    """A request or a response, as far as it came."""

    start_line: bytes
    headers: dict[bytes, list[bytes]]
    body: bytes = b""
    is_complete: bool = False

    @property
    def status(self) -> int:
        return int(self.start_line[9:12])

    def header(self, name: bytes) -> bytes:
        values = self.headers.get(name, [])
        assert len(values) < 2, f"{name.decode()} came {len(values)} times"
        return values[0] if values else b""


def parse_requests(data: bytes) -> list[Received]:
    found = []
    while data:
        head, rest = _head(data)
        if head is None:
            break
        assert head.start_line.endswith(b" HTTP/1.1") and head.start_line.count(b" ") == 2
        data = _take_body(head, rest, length_if_none=0)
        found.append(head)
    return found


def parse_answers(data: bytes, methods: Sequence[bytes], end: str) -> list[Received]:
    """`end` says how the connection did, if it did: a body without length needs it."""
    found: list[Received] = []
    while data:
        head, rest = _head(data)
        if head is None:
            break
        assert head.start_line.startswith(b"HTTP/1.1 "), head.start_line
        if head.status < 200:
            data = rest
            continue
        method = methods[len(found)] if len(found) < len(methods) else b""
        if method == b"HEAD" or head.status in (204, 304):
            head.is_complete = True
            data = rest
        elif b"content-length" in head.headers or b"transfer-encoding" in head.headers:
            data = _take_body(head, rest, length_if_none=0)
        else:
            head.body, data = rest, b""
            head.is_complete = end == "fin"
        found.append(head)
    return found


def _head(data: bytes) -> tuple[Received | None, bytes]:
    raw, separator, rest = data.partition(b"\r\n\r\n")
    if not separator:
        return None, data
    start_line, *lines = raw.split(b"\r\n")
    headers: dict[bytes, list[bytes]] = {}
    for line in lines:
        assert b"\n" not in line and b"\r" not in line
        name, colon, value = line.partition(b":")
        assert colon and name and name == name.strip(), line
        headers.setdefault(name.lower(), []).append(value.strip())
    assert not ({b"content-length", b"transfer-encoding"} <= headers.keys()), "two framings"
    return Received(start_line, headers), rest


def _take_body(message: Received, data: bytes, *, length_if_none: int) -> bytes:
    """Fills in the body, and gives back what follows it."""
    if message.header(b"transfer-encoding"):
        assert message.header(b"transfer-encoding").lower() == b"chunked"
        return _take_chunks(message, data)
    length = int(message.header(b"content-length") or length_if_none)
    message.body, rest = data[:length], data[length:]
    message.is_complete = len(message.body) == length
    return rest


def _take_chunks(message: Received, data: bytes) -> bytes:
    while True:
        line, separator, rest = data.partition(b"\r\n")
        if not separator:
            return b""
        size = int(line, 16)
        assert line == b"%x" % size
        message.body += rest[:size]
        if len(rest) < size + 2:
            return b""
        assert rest[size : size + 2] == b"\r\n"
        data = rest[size + 2 :]
        if not size:
            message.is_complete = True
            return data


def held_bytes(thing: object, kinds: tuple[type, ...]) -> int:
    """Bytes that an object, and others of these kinds that it leads to, keep in their slots."""
    total, found, seen = 0, [thing], {id(thing)}
    while found:
        thing = found.pop()
        for name in getattr(type(thing), "__slots__", ()):
            value: Any = getattr(thing, name, None)
            if isinstance(value, bytes | bytearray):
                total += len(value)
            elif isinstance(value, list):
                total += sum(len(one) for one in value if isinstance(one, bytes))
            elif isinstance(value, kinds) and id(value) not in seen:
                seen.add(id(value))
                found.append(value)
    return total
