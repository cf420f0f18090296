"""A real server that gets new configurations while it is at work."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import cast

import pytest

from llm_proxy.server.reload_request import request_reload
from llm_proxy.server.state import ServerState
from tests.end_to_end.conftest import Launch
from tests.end_to_end.raw_upstream import RawUpstream, connect
from tests.end_to_end.server_process import ServerProcess, run_command
from tests.end_to_end.waiting import eventually

RELOADS = 8
ASKERS, STREAMERS = 6, 4
EVENT_GAP_S = 0.01
EVENTS = 30
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

Use = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool]]


def reload(server: ServerProcess) -> ServerState:
    return request_reload(
        server.process.pid, pid_file=server.home.pid_file, state_file=server.home.state_file
    )


def write_env(server: ServerProcess, *lines: str) -> None:
    server.home.env_file.write_text("".join(f"{line}\n" for line in lines))


def get(path: bytes, token: bytes) -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: p\r\nAuthorization: Bearer %b\r\n\r\n" % (path, token)


class Upstream(asyncio.Protocol):
    """Short answers, and streams that last longer than a reload takes to begin."""

    def __init__(self, open_ones: set[asyncio.Transport]) -> None:
        self._open = open_ones
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._open.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        assert data.endswith(b"\r\n\r\n")
        if b" /v1/short " in data:
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nshort")
        else:
            self._transport.write(SSE)
            self._tell(0)

    def _tell(self, number: int) -> None:
        if self._transport.is_closing():
            return
        if number == EVENTS:
            self._transport.write(b"0\r\n\r\n")
            return
        event = b"data: %d\n\n" % number
        self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))
        asyncio.get_running_loop().call_later(EVENT_GAP_S, self._tell, number + 1)


@dataclass
class Load:
    """Clients that keep their connections as long as the server lets them, and never try twice."""

    address: str
    token: bytes
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    requests: int = 0
    streams: int = 0
    connections: int = 0
    failures: list[str] = field(default_factory=list)

    async def ask(self) -> None:
        await self._use_connections(self._ask_once)

    async def watch(self) -> None:
        await self._use_connections(self._watch_once)

    async def _use_connections(self, use: Use) -> None:
        while not self.stop.is_set():
            host, _, port = self.address.rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            self.connections += 1
            try:
                while not self.stop.is_set() and await use(reader, writer):
                    pass
            except (asyncio.IncompleteReadError, ConnectionError) as exc:
                self.failures.append(repr(exc))
            finally:
                writer.transport.abort()

    async def _ask_once(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection may be used again."""
        writer.write(get(b"/v1/short", self.token))
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 ") or await reader.readexactly(5) != b"short":
            self.failures.append(repr(head))
            return False
        self.requests += 1
        await asyncio.sleep(0.005)
        return b"connection: close" not in head.lower()

    async def _watch_once(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(get(b"/v1/stream", self.token))
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readuntil(b"\r\n0\r\n\r\n")
        if body.count(b"data: ") != EVENTS:
            self.failures.append(repr((head, body)))
            return False
        self.streams += 1
        return b"connection: close" not in head.lower()


@pytest.fixture
async def upstream() -> AsyncIterator[str]:
    open_ones: set[asyncio.Transport] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Upstream(open_ones), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    yield f"{host}:{port}"
    server.close()
    for transport in tuple(open_ones):
        transport.abort()
    await asyncio.sleep(0.01)


@pytest.mark.anyio
async def test_reloads_under_load_lose_no_request_and_cut_no_stream(
    launch: Launch, upstream: str
) -> None:
    server = launch(upstream=upstream)
    await asyncio.to_thread(server.start)
    load = Load(server.address, (await asyncio.to_thread(server.add_token)).encode())
    pids: set[int] = set()
    async with asyncio.timeout(90), asyncio.TaskGroup() as group:
        for _ in range(ASKERS):
            group.create_task(load.ask())
        for _ in range(STREAMERS):
            group.create_task(load.watch())
        for number in range(RELOADS):
            # More workers, fewer, and with other settings: sockets come and change hands.
            workers, size = 1 + number % 2, 1 + number
            write_env(server, f"LLM_PROXY_WORKERS={workers}", f"MAX_REQUEST_SIZE={size}KB")
            state = await asyncio.to_thread(reload, server)
            pids |= {worker.pid for worker in state.workers}
            begun = load.requests, load.streams
            while load.requests < begun[0] + ASKERS or load.streams < begun[1] + 1:
                await asyncio.sleep(0.01)
        load.stop.set()
    assert load.failures == []
    assert len(pids) == sum(1 + number % 2 for number in range(RELOADS))
    assert load.connections > ASKERS + STREAMERS  # those of the old workers were given up
    assert await asyncio.to_thread(server.stop) == 0
    records = server.records()
    assert len(records) == load.requests + load.streams
    assert not [record for record in records if record["truncated"] or record["error_code"]]


def test_running_stream_outlives_a_reload_and_new_requests_see_the_new_settings(
    launch: Launch, raw_upstream: RawUpstream
) -> None:
    server = launch(upstream=raw_upstream.address)
    server.start()
    token = server.add_token().encode()
    (old,) = server.worker_pids
    with connect(server.address) as client, connect(server.address) as kept:
        client.send(get(b"/v1/x", token))
        with raw_upstream.accept() as upstream:
            upstream.read_message()
            upstream.send(SSE + b"9\r\ndata: 1\n\n\r\n")
            client.read_until(b"data: 1\n\n\r\n")
            write_env(server, "DEBUG_HEADERS=true")
            state = reload(server)
            assert [worker.pid for worker in state.draining] == [old]
            with server.client() as http:
                assert http.get("/ready").status_code == 200
            kept.send(get(b"/v1/models", b"none"))  # the old worker still answers, once
            answer = kept.read_message()
            assert answer.start == b"HTTP/1.1 401 Unauthorized"
            assert answer.value(b"connection") == b"close"
            upstream.send(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")
            assert client.read_rest() == b"9\r\ndata: 2\n\n\r\n0\r\n\r\n"
    eventually(lambda: not server.state.draining)
    with connect(server.address) as client:
        client.send(get(b"/v1/x", token))
        with raw_upstream.accept() as upstream:
            upstream.read_message()
            upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            assert client.read_message().value(b"x-upstream-response-time") is not None


def test_revoked_token_is_refused_by_a_worker_that_drains(
    launch: Launch, raw_upstream: RawUpstream
) -> None:
    server = launch(upstream=raw_upstream.address)
    server.start()
    with server.manage() as manage:
        keys = {"openai": "sk-upstream-0123456789"}
        project = manage.create_project({"name": "one", "api_keys": keys})
        made = manage.create_token({"project_id": project.id, "duration_minutes": 5})
        token = made.token.encode()
        with connect(server.address) as client:
            client.send(get(b"/v1/x", token))
            with raw_upstream.accept() as upstream:
                upstream.read_message()
                upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            assert client.read_message().start == b"HTTP/1.1 200 OK"
            reload(server)
            manage.revoke_token(made.id)
            client.send(get(b"/v1/x", token))
            answer = client.read_message()
    assert answer.start == b"HTTP/1.1 401 Unauthorized"
    assert b"token_revoked" in answer.body


def test_unusable_configuration_is_refused_with_its_place_and_nothing_changes(
    launch: Launch,
) -> None:
    server = launch()
    server.start()
    before = server.worker_pids
    good = server.providers_file.read_text()
    server.providers_file.write_text(good.replace("default_api: openai", "default_apl: openai"))
    done = run_command(server.environ, "server", "reload")
    assert done.returncode == 1
    assert f"the old configuration stays in force: {server.providers_file}:1" in done.stderr
    assert "default_apl" in done.stderr
    server.providers_file.write_text(good)
    write_env(server, "MANAGE_ADDR=127.0.0.1:0")
    done = run_command(server.environ, "server", "reload")
    assert done.returncode == 1
    assert "MANAGE_ADDR can't be changed" in done.stderr
    assert "restart" in done.stderr
    assert server.worker_pids == before
    with server.client() as http:
        assert http.get("/ready").status_code == 200
    assert "the configuration was not reloaded: " in server.stderr


def test_worker_killed_with_others_costs_its_own_streams_only(
    launch: Launch, raw_upstream: RawUpstream
) -> None:
    server = launch(upstream=raw_upstream.address, arguments=["--workers", "2"])
    server.start()
    token = server.add_token().encode()
    clients, upstreams = [], []
    for _ in range(8):
        clients.append(connect(server.address))
        clients[-1].send(get(b"/v1/x", token))
        upstreams.append(raw_upstream.accept())
        upstreams[-1].read_message()
        upstreams[-1].send(SSE + b"9\r\ndata: 1\n\n\r\n")
        clients[-1].read_until(b"data: 1\n\n\r\n")
    os.kill(server.worker_pids[0], signal.SIGKILL)
    intact = 0
    for client, upstream in zip(clients, upstreams, strict=True):
        try:
            upstream.send(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")
            rest = client.read_until(b"0\r\n\r\n")
        except (EOFError, ConnectionError):
            continue  # its worker is dead, and no end was made up
        assert rest == b"9\r\ndata: 2\n\n\r\n0\r\n\r\n"
        intact += 1
    assert 0 < intact < 8
    for peer in [*clients, *upstreams]:
        peer.close()


def test_log_level_of_every_process_follows(launch: Launch) -> None:
    server = launch(arguments=["--log-format", "json"])
    server.start()
    write_env(server, "LOG_LEVEL=error")
    reload(server)
    assert server.stop() == 0
    assert '"draining for' not in server.stderr
