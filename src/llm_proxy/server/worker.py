"""A gateway worker: `python -m llm_proxy.server.worker --channel FD --listen FD …`.

Started by the supervisor, told over the channel its configuration, when to accept connections and
when to drain; also drains on SIGTERM or SIGINT, and when the channel ends with the supervisor.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import uvloop

from llm_proxy.database_url import parse_database
from llm_proxy.errors import LLMProxyError, StoreError
from llm_proxy.http1.resolver import Resolver
from llm_proxy.http1.timers import Timers
from llm_proxy.logs import configure_logging, reopen_logs
from llm_proxy.measurements import Snapshot
from llm_proxy.secrets import Cipher
from llm_proxy.server.certificate import Certificate
from llm_proxy.server.channel import (
    MAX_MESSAGE_BYTES,
    Acknowledge,
    Change,
    Collect,
    Configure,
    Drain,
    Failed,
    FromWorker,
    Invalidate,
    LimitsAnswer,
    LimitsState,
    Ready,
    Serve,
    ShareLimits,
    StoreState,
    ToWorker,
    WorkerConfig,
    decode_to_worker,
    encode,
)
from llm_proxy.server.drain import ACCEPTED_LATE_S, GREETED_LATE_S, Draining
from llm_proxy.server.free_memory import FreeMemory
from llm_proxy.server.gateway.accounts import TICK_S, Accounts
from llm_proxy.server.gateway.api import Upstream, build_control, build_upstream
from llm_proxy.server.gateway.client_address import TrustedProxies
from llm_proxy.server.gateway.client_connection import ClientConnection
from llm_proxy.server.gateway.gateway import Gateway
from llm_proxy.server.gateway.limiter import Limiter
from llm_proxy.server.gateway.listener import Acceptor, Listeners, ServerAcceptor
from llm_proxy.server.gateway.metrics import Metrics
from llm_proxy.server.gateway.proxied_connection import ProxiedConnection
from llm_proxy.server.gateway.proxied_listener import ProxiedAcceptor
from llm_proxy.server.gateway.recorder import Recorder
from llm_proxy.server.gateway.refusals import RefusalKey
from llm_proxy.server.gateway.remote_limits import RemoteLimits
from llm_proxy.server.gateway.routing import Router
from llm_proxy.server.gateway.snapshot import take_snapshot
from llm_proxy.server.gateway.tokens import Tokens
from llm_proxy.server.grant_source import StoreGrantSource
from llm_proxy.server.lease_source import StoreLeaseSource
from llm_proxy.server.ledger import Ledger
from llm_proxy.server.reporter import Reporter
from llm_proxy.server.supervisor_watch import SupervisorWatch
from llm_proxy.store.database import Store
from llm_proxy.store.encryption import KEY, learn_keys
from llm_proxy.store.legacy_import import LEGACY, has_legacy_tokens

logger = logging.getLogger(__name__)

RECORDER_CLOSE_S: Final = 5.0
_POOL_SIZE: Final = 2  # one looks tokens up while the other settles


class Worker:
    def __init__(
        self, config: WorkerConfig, *, tell: Callable[[FromWorker], None] = lambda message: None
    ) -> None:
        """`tell` sends the supervisor a message."""
        self._config = config
        self._tell = tell
        self._store = Store(
            parse_database(config.database.reveal()),
            cipher=Cipher(config.encryption_key),
            pool_size=_POOL_SIZE,
        )
        self._connections: set[ClientConnection] = set()
        self._upstreams: list[Upstream] = []
        self._recorder: Recorder | None = None
        self._listeners: Listeners | None = None
        self._certificate: Certificate | None = None
        self._accounting: asyncio.Task[None] | None = None
        self._supervisor: SupervisorWatch | None = None
        self._is_ending = asyncio.Event()
        greets = config.tls_cert is not None or config.proxy_protocol
        self.draining = Draining(
            self._connections, accepted_late_s=GREETED_LATE_S if greets else ACCEPTED_LATE_S
        )

    async def start(self) -> None:
        """Raises LLMProxyError when the configuration can't be used."""
        config = self._config
        self._store.open(migrate=False)
        metrics = Metrics(tuple(config.providers.apis))
        self._timers = Timers(asyncio.get_running_loop(), on_lag=metrics.lagged)
        self._timers.watch(FreeMemory())
        self._ledger = Ledger.create(Path(config.ledger), config.holder)
        self._grants = StoreGrantSource(self._store)
        if config.tls_cert is not None and config.tls_key is not None:
            self._certificate = Certificate(Path(config.tls_cert), Path(config.tls_key))
            self._timers.watch(self._certificate)
        leases = StoreLeaseSource(self._store, config.host, config.holder)
        self._tokens = Tokens(
            self._grants,
            Accounts(leases, self._ledger),
            knows_legacy_tokens=has_legacy_tokens(self._store),
        )
        resolver = Resolver()
        upstreams = {
            name: build_upstream(
                api,
                self._timers,
                max_body=config.max_request_size,
                egress=config.egress,
                resolver=resolver,
            )
            for name, api in config.providers.apis.items()
        }
        control = build_control(config.control_socket, self._timers)
        self._upstreams = [*upstreams.values(), control]
        if config.events_socket is not None:
            self._recorder = Recorder(config.events_socket)
            self._recorder.start()
        self._limiter = Limiter(config.providers.limits, authority=self._authority())
        self._timers.watch(self._limiter)
        self._gateway = Gateway(
            router=Router(
                upstreams,
                default=config.providers.default_api,
                control=control,
                management_is_public=config.management_is_public,
                metrics_path=config.metrics_path,
            ),
            tokens=self._tokens,
            timers=self._timers,
            recorder=self._recorder,
            metrics=metrics,
            client_limits=config.client_limits,
            limiter=self._limiter,
            debug_headers=config.debug_headers,
            trusted_proxies=(
                TrustedProxies(config.trusted_proxies) if config.trusted_proxies else None
            ),
        )
        self._supervisor = SupervisorWatch(self._tokens, grace_s=config.store_grace)
        self._timers.watch(self._supervisor)
        self._accounting = asyncio.create_task(self._account())

    def _authority(self) -> RemoteLimits | None:
        sharers = self._config.limit_sharers
        return RemoteLimits(self._tell, workers=sharers) if sharers else None

    def share_limits(self, message: ShareLimits) -> LimitsState:
        return self._limiter.share(RemoteLimits(self._tell, workers=message.sharers))

    def answer_limits(self, message: LimitsAnswer) -> None:
        if self._limiter.authority is not None:
            self._limiter.authority.answered(message)

    def lose_supervisor(self) -> None:
        if self._limiter.authority is not None:
            self._limiter.authority.end()
        self.draining.hurry()

    async def listen(self, listeners: Sequence[socket.socket]) -> None:
        self._listeners = Listeners([self._acceptor(listener) for listener in listeners])
        await self._listeners.open()
        self._timers.watch(self._listeners)
        if self._supervisor is not None:
            self._supervisor.begin(asyncio.get_running_loop().time())
        if self._gateway.is_draining:
            self._listeners.close()

    def _acceptor(self, listener: socket.socket) -> Acceptor:
        context = None if self._certificate is None else self._certificate.context
        head_timeout_s = self._config.client_limits.head_timeout
        if not self._config.proxy_protocol:
            return ServerAcceptor(
                listener,
                lambda: ClientConnection(self._gateway, self._connections),
                context=context,
                handshake_timeout_s=head_timeout_s,
            )
        return ProxiedAcceptor(
            listener,
            lambda client: ProxiedConnection(self._gateway, self._connections, client=client),
            trusted=self._gateway.trusted_proxies,
            context=context,
            head_timeout_s=head_timeout_s,
        )

    def measure(self) -> Snapshot:
        return take_snapshot(
            self._gateway,
            self._upstreams,
            recorder=self._recorder,
            connections=len(self._connections),
            lookups=self._grants.lookups,
        )

    def take_refusals(self) -> tuple[list[tuple[RefusalKey, int]], dict[str, int]]:
        return self._gateway.refusals.take()

    def invalidate(self, message: Invalidate) -> None:
        for change in message.changes:
            self._tokens.invalidate(change.kind, change.id)
            if change.kind.endswith("_cut"):
                self._cut(change)

    def _cut(self, change: Change) -> None:
        """Ends what runs for this token or project."""
        for connection in tuple(self._connections):
            connection.revoke(change.kind, change.id)

    async def learn(self, message: Invalidate) -> None:
        """What isn't of a token or project."""
        kinds = {change.kind for change in message.changes}
        if LEGACY in kinds:
            self._tokens.expect_legacy_tokens()
        if KEY in kinds:
            try:
                await self._store.run(learn_keys)  # now: the database won't tell for ever
            except StoreError as exc:
                logger.warning("the new encryption key can't be read now: %s", exc)

    def store_state(self, message: StoreState) -> None:
        if self._supervisor is not None:
            now = asyncio.get_running_loop().time()
            self._supervisor.heard(now, is_lost=message.is_lost)

    async def _account(self) -> None:
        """Until the end, and never cancelled: the store may have begun what it is told."""
        while not self._is_ending.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._is_ending.wait()
            await self._tokens.accounts.tick()

    async def drain(self) -> None:
        """Takes no new connection, lets what runs finish, and closes what is idle."""
        if self._listeners is not None:
            self._listeners.close()
        self._gateway.is_draining = True
        if self._supervisor is not None:
            self._timers.forget(self._supervisor)  # it may say nothing while it stops
        await self.draining.run()
        if self._listeners is not None:
            await self._listeners.wait_closed()

    async def close(self) -> None:
        """Hands on what was counted and recorded; nothing is accepted any more."""
        self._is_ending.set()
        if self._accounting is not None:
            await self._accounting
        for upstream in self._upstreams:
            await upstream.pool.close()
        await asyncio.sleep(0)  # connections that were cut say so, and their exchanges end
        if self._accounting is not None:
            await self._tokens.close()
            await self._tokens.accounts.close()
            self._ledger.close()
            self._timers.close()
        if self._recorder is not None:
            await self._recorder.close(RECORDER_CLOSE_S)
        self._store.close()


async def _obey(
    worker: Worker,
    listeners: Sequence[socket.socket],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    reporter: Reporter,
) -> None:
    """Follows the supervisor until there is none any more."""
    with contextlib.suppress(ConnectionError):  # instead of the end, when it left things unread
        while line := await reader.readline():
            message = decode_to_worker(line)
            try:
                if (answer := await _obey_one(worker, message, listeners, reporter)) is not None:
                    writer.write(encode(answer))
            except Exception:  # without an answer the supervisor knows that it wasn't obeyed
                logger.exception("a message of the supervisor could not be obeyed")
    logger.warning("the supervisor is gone; draining")
    worker.lose_supervisor()


async def _obey_one(
    worker: Worker, message: ToWorker, listeners: Sequence[socket.socket], reporter: Reporter
) -> FromWorker | None:
    """What the supervisor is to be told."""
    match message:
        case Invalidate():
            await worker.learn(message)
            worker.invalidate(message)
            return Acknowledge(message.sequence)
        case StoreState():
            worker.store_state(message)
        case ShareLimits():
            return worker.share_limits(message)
        case LimitsAnswer():
            worker.answer_limits(message)
        case Collect(sequence=sequence):
            reporter.answer(sequence)
        case Drain(timeout_s=timeout_s, idle_grace_s=idle_grace_s):
            worker.draining.ask(timeout_s, idle_grace_s)
        case Serve() if not worker.draining.is_asked.is_set():
            await _listen(worker, listeners)
    return None


async def _listen(worker: Worker, listeners: Sequence[socket.socket]) -> None:
    try:
        await worker.listen(listeners)
    except OSError as exc:
        logger.error("connections can't be accepted: %s", exc)
        worker.draining.ask(0)


async def _start(config: WorkerConfig, tell: Callable[[FromWorker], None]) -> Worker:
    log_file = Path(config.log_file) if config.log_file else None
    configure_logging(config.log_level, config.log_format, log_file)
    worker = Worker(config, tell=tell)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.draining.ask_unless_asked)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    loop.add_signal_handler(signal.SIGUSR1, reopen_logs)
    try:
        await worker.start()
    except LLMProxyError:
        await worker.close()
        raise
    return worker


async def serve(channel: socket.socket, listeners: Sequence[socket.socket]) -> int:
    reader, writer = await asyncio.open_unix_connection(sock=channel, limit=MAX_MESSAGE_BYTES)

    def tell(message: FromWorker) -> None:
        if not writer.is_closing():
            writer.write(encode(message))

    first = await reader.readline()
    if not first:
        return 1
    message = decode_to_worker(first)
    assert isinstance(message, Configure)
    try:
        worker = await _start(message.config, tell)
    except LLMProxyError as exc:
        tell(Failed(str(exc)))
        await writer.drain()
        return exc.exit_code
    # What exists now stays; looking through it again at every collection is time taken from
    # requests, and an exchange leaves no cycle behind. A failed connection attempt does: what waits
    # to be collected counts as memory that grows.
    gc.collect()
    gc.freeze()
    gc.set_threshold(2_000, 20, 20)
    tell(Ready(os.getpid()))
    reporter = Reporter(worker.measure, writer, take_refusals=worker.take_refusals)
    obeying = asyncio.create_task(_obey(worker, listeners, reader, writer, reporter))
    reporting = asyncio.create_task(reporter.run())
    await worker.draining.is_asked.wait()
    await worker.drain()
    await worker.close()
    for task in (obeying, reporting):
        task.cancel()
    await asyncio.gather(obeying, reporting, return_exceptions=True)
    reporter.finish()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()  # so that what was said last arrives
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description="a gateway worker of llm-proxy")
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--listen", type=int, action="append", required=True)
    options = parser.parse_args()
    channel = socket.socket(fileno=options.channel)
    listeners = [socket.socket(fileno=number) for number in options.listen]
    for inherited in (channel, *listeners):
        inherited.setblocking(False)
    sys.exit(uvloop.run(serve(channel, listeners)))


if __name__ == "__main__":
    main()
