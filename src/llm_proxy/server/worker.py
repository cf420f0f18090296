"""A gateway worker: `python -m llm_proxy.server.worker --channel FD --listen FD`.

Started by the supervisor, told its configuration over the channel, told to drain over the channel,
by SIGTERM or SIGINT, or by the end of the channel when the supervisor is gone.
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
from pathlib import Path
from typing import Final

import uvloop

from llm_proxy.errors import LLMProxyError, StoreError
from llm_proxy.http1.timers import Timers
from llm_proxy.logs import configure_logging, reopen_logs
from llm_proxy.secrets import Cipher
from llm_proxy.server.channel import (
    Acknowledge,
    Configure,
    Drain,
    Failed,
    FromWorker,
    Invalidate,
    Ready,
    WorkerConfig,
    decode_to_worker,
    encode,
)
from llm_proxy.server.gateway.api import Upstream, build_control, build_upstream
from llm_proxy.server.gateway.client_connection import ClientConnection
from llm_proxy.server.gateway.gateway import Gateway
from llm_proxy.server.gateway.recorder import Recorder
from llm_proxy.server.gateway.routing import Router
from llm_proxy.server.gateway.tokens import Tokens
from llm_proxy.server.grant_source import StoreGrantSource
from llm_proxy.store.database import Store

logger = logging.getLogger(__name__)

BACKLOG: Final = 4096
RECORD_USAGE_EVERY_S: Final = 1.0  # what a killed worker forgets at most
DEFAULT_DRAIN_S: Final = 30.0
ACCEPTED_LATE_S: Final = 0.1  # uvloop tells of a connection a tick after the kernel accepted it
IDLE_GRACE_S: Final = 0.5  # for a request that was on its way when the drain began
DRAIN_POLL_S: Final = 0.05
RECORDER_CLOSE_S: Final = 5.0
_CHANNEL_LIMIT: Final = 64 << 20  # bytes of one message


class Worker:
    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self._store = Store(Path(config.database), cipher=Cipher(config.encryption_key))
        self._connections: set[ClientConnection] = set()
        self._upstreams: list[Upstream] = []
        self._recorder: Recorder | None = None
        self._server: asyncio.Server | None = None
        self._recording: asyncio.Task[None] | None = None
        self._is_ending = asyncio.Event()
        self._is_store_lost = False
        self.drain_requested = asyncio.Event()
        self.drain_timeout_s = DEFAULT_DRAIN_S

    async def start(self, listener: socket.socket) -> None:
        """Raises LLMProxyError when the configuration can't be used."""
        config = self._config
        self._store.open(migrate=False)
        self._timers = Timers(asyncio.get_running_loop())
        self._tokens = Tokens(StoreGrantSource(self._store))
        upstreams = {
            name: build_upstream(api, self._timers, max_body=config.max_request_size)
            for name, api in config.providers.apis.items()
        }
        control = build_control(config.control_socket, self._timers)
        self._upstreams = [*upstreams.values(), control]
        if config.events_socket is not None:
            self._recorder = Recorder(config.events_socket)
            self._recorder.start()
        self._gateway = Gateway(
            router=Router(
                upstreams,
                default=config.providers.default_api,
                control=control,
                management_is_public=config.management_is_public,
            ),
            tokens=self._tokens,
            timers=self._timers,
            recorder=self._recorder,
            debug_headers=config.debug_headers,
        )
        self._recording = asyncio.create_task(self._record_usage())
        self._server = await asyncio.get_running_loop().create_server(
            lambda: ClientConnection(self._gateway, self._connections),
            sock=listener,
            backlog=BACKLOG,
        )

    def invalidate(self, message: Invalidate) -> None:
        for change in message.changes:
            self._tokens.invalidate(change.kind, change.id)

    async def _record_usage(self) -> None:
        """Until the end, and never cancelled: what was being recorded would be so once more."""
        while not self._is_ending.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RECORD_USAGE_EVERY_S):
                    await self._is_ending.wait()
            await self._record_usage_once()

    async def _record_usage_once(self) -> None:
        try:
            await self._tokens.record_usage()
        except StoreError as exc:
            if not self._is_store_lost:
                logger.error("usage can't be recorded, keeping it until it can: %s", exc)
            self._is_store_lost = True
        else:
            self._is_store_lost = False

    async def drain(self) -> None:
        """Takes no new connection, lets what runs finish, and closes what is idle."""
        assert self._server is not None
        deadline = asyncio.get_running_loop().time() + self.drain_timeout_s
        self._server.close()
        self._gateway.is_draining = True
        await self._wait_until_gone(min(ACCEPTED_LATE_S, self.drain_timeout_s))
        if self._connections:
            await self._wait_until_gone(min(IDLE_GRACE_S, self.drain_timeout_s))
        for connection in tuple(self._connections):
            connection.drain()
        await self._wait_until_gone(deadline - asyncio.get_running_loop().time())
        if self._connections:
            logger.warning("%d connections were cut after the drain", len(self._connections))
        for connection in tuple(self._connections):
            connection.abort()

    async def _wait_until_gone(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end and (self._connections or seconds <= ACCEPTED_LATE_S):
            await asyncio.sleep(min(DRAIN_POLL_S, max(end - loop.time(), 0.001)))

    async def close(self) -> None:
        """Hands on what was counted and recorded; nothing is accepted any more."""
        self._is_ending.set()
        if self._recording is not None:
            await self._recording
        for upstream in self._upstreams:
            await upstream.pool.close()
        await asyncio.sleep(0)  # connections that were cut say so, and their exchanges end
        if self._recording is not None:
            await self._tokens.close()
            await self._record_usage_once()
            self._timers.close()
        if self._recorder is not None:
            await self._recorder.close(RECORDER_CLOSE_S)
        self._store.close()


async def _obey(worker: Worker, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Follows the supervisor until a drain is asked for, or there is no supervisor any more."""
    with contextlib.suppress(ConnectionError):  # instead of the end, when it left things unread
        while line := await reader.readline():
            message = decode_to_worker(line)
            if isinstance(message, Invalidate):
                worker.invalidate(message)
                writer.write(encode(Acknowledge(message.sequence)))
            elif isinstance(message, Drain):
                worker.drain_timeout_s = message.timeout_s
                worker.drain_requested.set()
    if not worker.drain_requested.is_set():
        logger.warning("the supervisor is gone; draining")
    worker.drain_requested.set()


async def _start(config: WorkerConfig, listener: socket.socket) -> Worker:
    log_file = Path(config.log_file) if config.log_file else None
    configure_logging(config.log_level, config.log_format, log_file)
    worker = Worker(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.drain_requested.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    loop.add_signal_handler(signal.SIGUSR1, reopen_logs)
    try:
        await worker.start(listener)
    except LLMProxyError:
        await worker.close()
        raise
    return worker


async def serve(channel: socket.socket, listener: socket.socket) -> int:
    reader, writer = await asyncio.open_unix_connection(sock=channel, limit=_CHANNEL_LIMIT)

    async def tell(message: FromWorker) -> None:
        writer.write(encode(message))
        await writer.drain()

    first = await reader.readline()
    if not first:
        return 1
    message = decode_to_worker(first)
    assert isinstance(message, Configure)
    try:
        worker = await _start(message.config, listener)
    except LLMProxyError as exc:
        await tell(Failed(str(exc)))
        return exc.exit_code
    # What exists now stays; looking through it again at every collection is time taken from
    # requests, and an exchange leaves no cycle behind.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
    await tell(Ready(os.getpid()))
    obeying = asyncio.create_task(_obey(worker, reader, writer))
    await worker.drain_requested.wait()
    await worker.drain()
    await worker.close()
    obeying.cancel()
    await asyncio.gather(obeying, return_exceptions=True)
    writer.close()
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description="a gateway worker of llm-proxy")
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--listen", type=int, required=True)
    options = parser.parse_args()
    channel = socket.socket(fileno=options.channel)
    listener = socket.socket(fileno=options.listen)
    for inherited in (channel, listener):
        inherited.setblocking(False)
    sys.exit(uvloop.run(serve(channel, listener)))


if __name__ == "__main__":
    main()
