"""A real worker process, led over a channel as the supervisor leads it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_proxy.errors import LLMProxyError
from llm_proxy.events.record import FRAME_HEAD, ExchangeRecord
from llm_proxy.providers import Api, Providers
from llm_proxy.secrets import Cipher, Secret, new_encryption_key, new_token, token_digest
from llm_proxy.server.channel import Change, Configure, Invalidate, Serve, WorkerConfig, encode
from llm_proxy.server.child_process import child_environment, module_command, start_process
from llm_proxy.server.tally import Tally
from llm_proxy.server.worker_process import WorkerProcess
from llm_proxy.store.database import Store
from llm_proxy.store.encryption import begin_rotation, finish_rotation, reencrypt
from llm_proxy.store.projects import Project, create_project
from llm_proxy.store.tokens import Token, create_token, get_token, revoke_token

pytestmark = pytest.mark.anyio

COMMAND = module_command("llm_proxy.server.worker")
NOW = datetime.now(UTC)
LIMIT_S = 20.0
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the supervisor's loop


class Bench:
    """A database with one token, an upstream that a test plays, and a worker between."""

    def __init__(self, folder: Path) -> None:
        self.key = new_encryption_key()
        self.token = new_token().reveal().encode()
        self.path = folder / "llm-proxy.db"
        self.store = Store(self.path, cipher=Cipher(self.key))
        self.peers: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
            asyncio.Queue()
        )
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.workers: list[WorkerProcess] = []
        self.tally = Tally()
        self._writers: list[asyncio.StreamWriter] = []
        self.config: WorkerConfig

    async def start(self) -> None:
        self.store.open(migrate=True)
        self._fill()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        api = Api(
            name="openai",
            base_url=f"http://127.0.0.1:{port}",
            allowed_endpoints=("/v1/chat/completions",),
            allowed_methods=("POST",),
        )
        self.config = WorkerConfig(
            database=Secret(str(self.path)),
            encryption_key=self.key,
            host="host",
            holder="worker",
            ledger=str(self.path.with_name("ledger")),
            providers=Providers(default_api="openai", apis={"openai": api}),
            control_socket=str(self.path.with_name("control")),
            events_socket=None,
            management_is_public=True,
            max_request_size=1000,
            debug_headers=False,
            log_file=str(self.path.with_name("worker.log")),
        )

    def _fill(self) -> None:
        project = Project(
            id="p",
            name="p",
            description="",
            metadata={},
            is_active=True,
            deactivated_at=None,
            created_at=NOW,
            updated_at=NOW,
            api_keys={"openai": Secret("sk-upstream")},
        )
        token = Token(
            id="t",
            name="",
            masked="sk-…",
            project_id="p",
            expires_at=None,
            is_active=True,
            deactivated_at=None,
            max_requests=None,
            request_count=0,
            cache_hit_count=0,
            created_at=NOW,
            last_used_at=None,
        )
        create_project(self.store, project)
        create_token(self.store, token, digest=token_digest(self.token))

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self.peers.put_nowait((reader, writer))

    async def launch(self, **changes: Any) -> WorkerProcess:
        holder = f"worker-{len(self.workers)}"
        ledger = str(self.path.with_name(f"ledger-{holder}"))
        config = msgspec.structs.replace(self.config, holder=holder, ledger=ledger)
        config = msgspec.structs.replace(config, **changes)
        worker = await WorkerProcess.launch(
            COMMAND, listeners=[self.listener], config=config, tally=self.tally
        )
        self.workers.append(worker)
        worker.serve()
        return worker

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        address = self.listener.getsockname()
        reader, writer = await asyncio.open_connection(*address)
        self._writers.append(writer)
        return reader, writer

    def request(self, body: bytes = b"{}") -> bytes:
        return (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n"
            b"Content-Length: %d\r\n\r\n%b"
        ) % (self.token, len(body), body)

    async def stream(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client's end and the upstream's end of a stream that has begun."""
        reader, writer = await self.connect()
        writer.write(self.request())
        async with asyncio.timeout(LIMIT_S):
            peer, upstream = await self.peers.get()
            received = await peer.readuntil(b"{}")
            assert b"\r\nAuthorization: Bearer sk-upstream\r\n" in received
            upstream.write(SSE + b"9\r\ndata: 1\n\n\r\n")
            await reader.readuntil(b"data: 1\n\n\r\n")
        return reader, upstream

    async def close(self) -> None:
        for worker in self.workers:
            worker.kill()
            await worker.wait()
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        self.listener.close()
        self.store.close()
        await asyncio.sleep(0)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    await bench.start()
    yield bench
    await bench.close()


async def exit_code(worker: WorkerProcess) -> int:
    async with asyncio.timeout(LIMIT_S):
        return await worker.wait()


async def test_worker_serves_obeys_and_records_what_it_counted(bench: Bench) -> None:
    worker = await bench.launch()
    await worker.wait_until_ready()
    reader, upstream = await bench.stream()
    upstream.write(b"0\r\n\r\n")
    async with asyncio.timeout(LIMIT_S):
        assert await reader.readuntil(b"0\r\n\r\n")
    revoke_token(bench.store, "t", at=NOW)
    assert await worker.invalidate(Invalidate(1, [Change("token", "t")]), timeout_s=5)
    reader, writer = await bench.connect()
    writer.write(bench.request())
    async with asyncio.timeout(LIMIT_S):
        assert (await reader.readline()) == b"HTTP/1.1 401 Unauthorized\r\n"
    worker.drain(5)
    assert await exit_code(worker) == 0
    token = get_token(bench.store, "t")
    assert token is not None
    assert token.request_count == 1


@pytest.mark.parametrize("how", ["drain", "SIGTERM", "SIGINT"])
async def test_running_stream_ends_in_peace(bench: Bench, how: str) -> None:
    worker = await bench.launch()
    await worker.wait_until_ready()
    reader, upstream = await bench.stream()
    address = bench.listener.getsockname()
    if how == "drain":
        worker.drain(LIMIT_S)
    else:
        worker.send_signal(signal.SIGHUP)  # does nothing to a worker
        worker.send_signal(signal.Signals[how])
    bench.listener.close()
    with pytest.raises(OSError):  # no new connection, while the old one goes on
        async with asyncio.timeout(LIMIT_S):
            while True:
                _, writer = await asyncio.open_connection(*address)
                writer.transport.abort()
                await asyncio.sleep(0.02)
    upstream.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")
    async with asyncio.timeout(LIMIT_S):
        assert await reader.read() == b"9\r\ndata: 2\n\n\r\n0\r\n\r\n"
    assert await exit_code(worker) == 0


async def test_stream_that_outlasts_the_drain_is_cut(bench: Bench) -> None:
    worker = await bench.launch()
    await worker.wait_until_ready()
    reader, _ = await bench.stream()
    worker.drain(0.1)
    async with asyncio.timeout(LIMIT_S):
        rest = await reader.read()
    assert not rest.endswith(b"0\r\n\r\n")
    assert await exit_code(worker) == 0
    assert "connections cut after the drain: 1" in Path(bench.config.log_file or "").read_text()


async def test_worker_without_a_supervisor_drains(bench: Bench) -> None:
    """Even when what it said last was never read, which ends the channel with an error."""
    ours, theirs = socket.socketpair()
    process = await start_process(
        [*COMMAND, "--channel", str(theirs.fileno()), "--listen", str(bench.listener.fileno())],
        environ=child_environment(os.environ),
        pass_fds=[theirs.fileno(), bench.listener.fileno()],
    )
    theirs.close()
    ours.sendall(encode(Configure(bench.config)) + encode(Serve()))
    reader, upstream = await bench.stream()  # it serves, so it has said that it is ready
    ours.close()
    bench.listener.close()
    upstream.write(b"0\r\n\r\n")
    async with asyncio.timeout(LIMIT_S):
        assert await reader.readuntil(b"0\r\n\r\n")
        assert await process.wait() == 0
    assert "the supervisor is gone" in Path(bench.config.log_file or "").read_text()


async def test_worker_that_is_never_configured_ends(bench: Bench) -> None:
    ours, theirs = socket.socketpair()
    process = await start_process(
        [*COMMAND, "--channel", str(theirs.fileno()), "--listen", str(bench.listener.fileno())],
        environ=child_environment(os.environ),
        pass_fds=[theirs.fileno(), bench.listener.fileno()],
    )
    theirs.close()
    ours.close()
    async with asyncio.timeout(LIMIT_S):
        assert await process.wait() == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"database": Secret("/no/such/folder/db")}, "/no/such/folder/db"),
        ({"encryption_key": Secret("short")}, "ENCRYPTION_KEY must be 32 bytes"),
        ({"encryption_key": new_encryption_key()}, "ENCRYPTION_KEY isn't the one"),
        ({"log_file": "/no/such/folder/log"}, "/no/such/folder/log"),
        ({"ca_file": "/no/such.pem"}, "ca_file /no/such.pem"),
    ],
)
async def test_configuration_that_cannot_be_used_is_told(
    bench: Bench, changes: dict[str, Any], reason: str
) -> None:
    if "ca_file" in changes:
        (api,) = bench.config.providers.apis.values()
        api = msgspec.structs.replace(api, base_url="https://a.test", **changes)
        changes = {"providers": Providers(default_api="openai", apis={"openai": api})}
    worker = await bench.launch(**changes)
    with pytest.raises(LLMProxyError) as caught:
        await worker.wait_until_ready()
    assert "a gateway worker did not start: " in str(caught.value)
    assert reason in str(caught.value)
    assert await exit_code(worker) == 1


async def test_records_go_to_the_writers_socket(
    bench: Bench, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("s") / "events"
    received: asyncio.Queue[bytes] = asyncio.Queue()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (size,) = FRAME_HEAD.unpack(await reader.readexactly(FRAME_HEAD.size))
        received.put_nowait(await reader.readexactly(size))
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(take, path)
    worker = await bench.launch(events_socket=str(path))
    await worker.wait_until_ready()
    reader, upstream = await bench.stream()
    upstream.write(b"0\r\n\r\n")
    async with asyncio.timeout(LIMIT_S):
        await reader.readuntil(b"0\r\n\r\n")
        frame = await received.get()
    (record,) = msgspec.msgpack.decode(frame, type=list[ExchangeRecord])
    assert (record.token_id, record.status_code, record.body) == ("t", 200, b"data: 1\n\n")
    worker.drain(5)
    assert await exit_code(worker) == 0
    server.close()


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
async def test_what_a_worker_counted_outlives_it(bench: Bench, how: str) -> None:
    """It tells so every second, and at its end if it has one in order; nobody asks it here."""
    worker = await bench.launch()
    await worker.wait_until_ready()
    reader, upstream = await bench.stream()
    upstream.write(b"0\r\n\r\n")
    key = ("requests", ("openai", "200"))
    async with asyncio.timeout(LIMIT_S):
        await reader.readuntil(b"0\r\n\r\n")
        if how == "SIGKILL":
            while not any((s.name, s.labels) == key for s in worker.snapshot.counters):
                await asyncio.sleep(0.01)
    worker.send_signal(signal.Signals[how])
    await exit_code(worker)
    totals = await bench.tally.collect()
    assert totals.counters[key] == 1
    assert totals.counters["process_cpu_seconds", ("worker",)] > 0
    assert sum(totals.distributions["request_duration_seconds", ("openai",)].counts) == 1
    assert totals.gauges == {}


async def test_a_worker_is_measured_while_it_serves(bench: Bench) -> None:
    worker = await bench.launch()
    await worker.wait_until_ready()
    _, upstream = await bench.stream()
    totals = await bench.tally.collect()
    assert totals.gauges["requests_running", ()] == 1
    assert totals.gauges["client_connections_open", ()] == 1
    assert totals.counters["token_lookups", ("found",)] == 1
    assert totals.circuits["openai"].state == "closed"
    upstream.close()


async def test_a_new_encryption_key_is_learned_while_the_database_tells(bench: Bench) -> None:
    worker = await bench.launch()
    await worker.wait_until_ready()
    new = begin_rotation(bench.store, None, at=NOW).new
    assert await worker.invalidate(Invalidate(1, [Change("key", new.key_id)]), timeout_s=5)
    reencrypt(bench.store)
    finish_rotation(bench.store)
    reader, upstream = await bench.stream()  # on a token whose key it had not read before
    upstream.write(b"0\r\n\r\n")
    async with asyncio.timeout(LIMIT_S):
        assert await reader.readuntil(b"0\r\n\r\n")
    worker.drain(5)
    assert await exit_code(worker) == 0
