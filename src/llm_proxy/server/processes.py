"""A server at work: its workers, its record writer and the control plane, on their foundation."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from llm_proxy import __version__
from llm_proxy.measurements import Series, Snapshot
from llm_proxy.secrets import Secret, key_id
from llm_proxy.server.auditor import make_auditor
from llm_proxy.server.change_feed import ChangeFeed
from llm_proxy.server.channel import Change
from llm_proxy.server.child_process import module_command
from llm_proxy.server.configuration import Configuration, check_scope
from llm_proxy.server.control.audit_trail import NoAudit
from llm_proxy.server.control.context import ControlContext, HealthReport
from llm_proxy.server.fleet.authority import FleetAuthority
from llm_proxy.server.fleet.start import start_fleet
from llm_proxy.server.foundation import Foundation
from llm_proxy.server.generations import Generation, Generations
from llm_proxy.server.host_authority import HostAuthority
from llm_proxy.server.host_watch import HostWatch
from llm_proxy.server.limit_authority import Authority
from llm_proxy.server.process_usage import measure_processes
from llm_proxy.server.public_sockets import PublicSockets
from llm_proxy.server.record_writer import RecordWriter, writer_arguments
from llm_proxy.server.runtime_folder import events_socket
from llm_proxy.server.self_reference import check_self_reference
from llm_proxy.server.settlement import Settlement
from llm_proxy.server.sockets import address_of
from llm_proxy.server.state import Flags, ReloadResult, ServerState, WorkerState, write_state
from llm_proxy.server.stop_request import take_stop_request
from llm_proxy.server.tally import Tally
from llm_proxy.server.token_cleanup import TokenCleanup
from llm_proxy.server.worker_pool import WorkerPool
from llm_proxy.server.worker_process import WorkerProcess
from llm_proxy.settings import Settings
from llm_proxy.store.changes import changes_after, last_change_id
from llm_proxy.store.encryption import KEY, accept_key, learn_keys

if TYPE_CHECKING:
    from llm_proxy.server.control_server import ControlServer

logger = logging.getLogger(__name__)

WORKER_COMMAND = module_command("llm_proxy.server.worker")
_CUT_WRITER_S = 2.0


class Processes:
    def __init__(
        self, foundation: Foundation, *, flags: Flags, worker_command: Sequence[str]
    ) -> None:
        """`flags` are kept in the state file, for `server restart`."""
        self._foundation = foundation
        self._configuration = foundation.configuration
        self._flags = flags
        self._worker_command = worker_command
        self._started_at = time.time()
        self._tally = Tally()
        self._settlement = Settlement(
            foundation.store, host=foundation.host, folder=foundation.settings.home.ledgers
        )
        self._auditor = make_auditor(foundation.settings, foundation.store, foundation.host)
        self._watch = HostWatch(foundation.store, host=foundation.host)
        self._cleanup = TokenCleanup(
            foundation.store,
            self.publish,
            interval_s=lambda: self.settings.token_cleanup_interval,
            tell=self._tell_expired,
        )
        self._host_limits = HostAuthority()
        self._authority: Authority = self._host_limits
        self._fleet: FleetAuthority | None = None  # of the scope host there is none
        self._is_ready = False
        self._is_draining = False
        self.address = address_of(foundation.listeners[0])
        manage_sockets = foundation.control_sockets[1:]
        self.manage_address = address_of(manage_sockets[0]) if manage_sockets else None
        self._sockets = PublicSockets(foundation.listeners)
        self._generations = Generations(on_change=self._write_state, on_gone=self._retire_writer)
        self._writers: list[RecordWriter] = []  # that run
        self._writers_made = 0
        self._records_lost = 0
        self._reloads = 0  # begun
        self._last_reload: ReloadResult | None = None
        self._feed: ChangeFeed | None = None
        self._control: ControlServer | None = None

    @property
    def settings(self) -> Settings:
        """Those in force."""
        return self._configuration.settings

    async def start(self, stack: AsyncExitStack) -> None:
        """Returns when requests are served; the stack then ends at once what it started."""
        stack.callback(self._remove_state)
        self._write_state()
        last_id = await self._foundation.store.run(last_change_id)
        stack.callback(self._sockets.close)
        await self._start_audit(stack)
        await self._watch.start()
        stack.push_async_callback(self._watch.close)
        await self._settlement.start()
        stack.push_async_callback(self._settlement.close)  # when all workers have ended
        if self._configuration.providers.limits.scope == "fleet":
            self._fleet = await start_fleet(self.settings, self._host_limits, stack)
            self._authority = self._fleet
        await self._start_all(self._prepare(self._configuration), stack)
        self._feed = ChangeFeed(
            self._read_changes,
            self.publish,
            last_id=last_id,
            on_poll=self._generations.tell_store_state,
        )
        self._is_ready = True

    async def _start_audit(self, stack: AsyncExitStack) -> None:
        if (auditor := self._auditor) is None:
            return
        stack.push_async_callback(auditor.close)
        await auditor.open()
        if (predecessor := self._foundation.predecessor) is not None:
            lost = "the server did not end in order"
            await auditor.tell("server.lost", lost, pid=predecessor.pid)
        await auditor.tell(
            "server.start",
            pid=os.getpid(),
            version=__version__,
            address=self.address,
            workers=self.settings.workers,
        )
        self._tally.on_refused = auditor.count_refused

    async def _start_all(self, first: Generation, stack: AsyncExitStack) -> None:
        stack.push_async_callback(self._kill_writers)
        stack.push_async_callback(self._generations.kill)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._generations.succeed(first))
                if first.writer is not None:
                    group.create_task(self._start_writer(first.writer))
                group.create_task(self._start_control(stack))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _start_control(self, stack: AsyncExitStack) -> None:
        # Importing it takes as long as a worker takes to start, so both happen at once.
        name = "llm_proxy.server.control_server"
        module = await asyncio.to_thread(importlib.import_module, name)
        copies = [sock.dup() for sock in self._foundation.control_sockets]
        self._control = module.ControlServer(self._control_context(), copies)
        stack.push_async_callback(self._control.stop)

    async def run(self) -> None:
        """Goes on until it is cancelled; raises when the control plane fails."""
        assert self._feed is not None
        assert self._control is not None
        async with asyncio.TaskGroup() as group:
            group.create_task(self._feed.run())
            group.create_task(self._generations.watch())
            group.create_task(self._cleanup.run())
            group.create_task(self._control.wait())
            if self._auditor is not None:
                group.create_task(self._auditor.run())

    async def drain(self, timeout_s: float) -> None:
        """Workers finish what they have begun, then the writer writes what they sent.

        May be cancelled and called again: the last time limit counts.
        """
        self._is_draining = True
        if self._feed is not None and not self._feed.is_healthy:
            # What it can't be told now the next start tells it, out of the ledgers.
            self._foundation.store.is_given_up = True
        self._generations.begin_drain(timeout_s)
        # With the workers' own closed too, new connections are refused instead of left waiting.
        self._sockets.close()
        self._write_state()
        async with self._following_changes():
            await self._generations.drain(timeout_s)
        for writer in tuple(self._writers):
            await writer.finish()

    @asynccontextmanager
    async def _following_changes(self) -> AsyncIterator[None]:
        """What runs still must end when its token is revoked on another host."""
        if self._feed is None or not self._feed.is_healthy:
            yield
            return
        following = asyncio.create_task(self._feed.run())
        try:
            yield
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def cut(self) -> None:
        """What is running ends within seconds, and is recorded as far as possible."""
        await self._generations.cut()
        for writer in tuple(self._writers):
            await writer.finish(timeout_s=_CUT_WRITER_S)

    async def reload(self, configuration: Configuration) -> None:
        """Returns when it is in force; when it can't be, raises why, and nothing has changed."""
        check_scope(self._configuration, configuration)
        await self._accept_key(configuration.settings.encryption_key)
        held = [*self._foundation.listeners, *self._foundation.control_sockets]
        await check_self_reference(configuration.providers.apis.values(), held)
        fresh = self._prepare(configuration)
        new_writer = fresh.writer if fresh.writer not in self._writers else None
        try:
            if new_writer is not None:
                await self._start_writer(new_writer)
            await self._generations.succeed(fresh)
        except BaseException:
            if new_writer is not None:
                await new_writer.kill()
                self._writers.remove(new_writer)
            raise
        self._configuration = configuration

    async def _accept_key(self, key: Secret | None) -> None:
        """Only one that the database was rotated to is another than before."""
        if key is not None and key != self.settings.encryption_key:
            await self._foundation.store.run(accept_key, key)

    def take_stop_request(self) -> float | None:
        """The seconds that `server stop` grants, if it was that which sent the signal."""
        return take_stop_request(self._foundation.runtime_folder)

    async def publish(self, changes: Sequence[Change]) -> None:
        await self._generations.publish(changes)

    def reopen_logs(self) -> None:
        self._generations.reopen_logs()
        for writer in self._writers:
            writer.reopen_logs()

    def begin_reload(self) -> None:
        """Whoever asks for a reload from now on gets one that begins later."""
        self._reloads += 1
        self._write_state()

    async def end_reload(self, error: str | None) -> None:
        if self._auditor is not None:
            await self._auditor.tell("config.reload", error)
        self._last_reload = ReloadResult(number=self._reloads, at=time.time(), error=error)
        self._write_state()

    async def _tell_expired(self, token_ids: Sequence[str]) -> None:
        if self._auditor is not None:
            await self._auditor.tell_expired(token_ids)

    def _prepare(self, configuration: Configuration) -> Generation:
        """Nothing of it runs yet."""
        writer = self._writer_for(configuration.settings)
        configs = configuration.worker_configs(
            self._foundation.runtime_folder,
            events_socket=None if writer is None else writer.socket,
            follows=self._generations.current is not None,
        )
        pool = WorkerPool(
            self._worker_command,
            configs,
            self._sockets.spread(len(configs)),
            on_change=self._write_state,
            tally=self._tally,
            holders=self._settlement,
            authority=self._authority,
        )
        return Generation(pool, writer)

    def _writer_for(self, settings: Settings) -> RecordWriter | None:
        """The one that runs, if it does already what is wanted."""
        arguments = writer_arguments(settings)
        if arguments is None or (self._writer and self._writer.arguments == arguments):
            return None if arguments is None else self._writer
        self._writers_made += 1
        socket = self._foundation.runtime_folder / events_socket(self._writers_made)
        return RecordWriter(
            arguments, socket=socket, on_change=self._write_state, on_lost=self._count_lost
        )

    def _count_lost(self, records: int) -> None:
        self._records_lost += records

    @property
    def _writer(self) -> RecordWriter | None:
        current = self._generations.current
        return None if current is None else current.writer

    async def _start_writer(self, writer: RecordWriter) -> None:
        self._writers.append(writer)
        await writer.start()

    async def _retire_writer(self, gone: Generation) -> None:
        users = [generation for generation in self._generations.all if generation is not gone]
        if gone.writer is not None and all(user.writer is not gone.writer for user in users):
            await gone.writer.finish()
            self._writers.remove(gone.writer)

    async def _kill_writers(self) -> None:
        for writer in self._writers:
            await writer.kill()

    def _control_context(self) -> ControlContext:
        settings = self._foundation.settings
        assert settings.management_token is not None
        return ControlContext(
            store=self._foundation.store,
            management_token=settings.management_token,
            apis=lambda: tuple(self._configuration.providers.apis),
            default_api=lambda: self._configuration.providers.default_api,
            publish=self.publish,
            health=self._health,
            measure=self._tally.collect,
            measure_server=self._measure_server,
            metrics_path=settings.metrics_path if settings.enable_metrics else None,
            audit=NoAudit() if self._auditor is None else self._auditor,
        )

    async def _measure_server(self) -> Snapshot:
        current, draining = self._generations.current, self._generations.draining
        workers = [*(current.pool.ready if current is not None else []), *draining]
        pids = {
            "supervisor": [os.getpid()],
            "worker": [worker.pid for worker in workers],
            "writer": [writer.pid for writer in self._writers if writer.pid is not None],
        }
        uptime_s = time.time() - self._started_at
        gauges = (
            Series("uptime_seconds", (), uptime_s),
            Series("workers", (), len(workers)),
        )
        limits = self._host_limits.snapshot() if self._fleet is None else self._fleet.snapshot()
        usage = await asyncio.to_thread(measure_processes, pids)
        return msgspec.structs.replace(
            usage,
            counters=usage.counters
            + limits.counters
            + (Series("records_lost", (), self._records_lost),),
            gauges=usage.gauges + gauges + limits.gauges,
        )

    def _health(self) -> HealthReport:
        pool = None if self._generations.current is None else self._generations.current.pool
        ready, expected = (len(pool.ready), pool.expected) if pool is not None else (0, 0)
        # One is enough to be unwell: connections to a dead worker's socket wait for the next.
        checks = {"workers": "ok" if ready == expected else f"{ready} of {expected} running"}
        if self._feed is not None and not self._feed.is_healthy:
            checks["store"] = "unavailable"
        beside: dict[str, str] = {}
        if (fleet := self._fleet) is not None:
            (beside if fleet.lasts_without_redis else checks)["redis"] = fleet.status
        return HealthReport(
            ready=self._is_ready, draining=self._is_draining, checks=checks, beside=beside
        )

    async def _read_changes(self, last_id: int) -> tuple[int, list[Change]]:
        store = self._foundation.store
        last_id, rows = await store.run(changes_after, last_id)
        if any(row.kind == KEY for row in rows):
            await store.run(learn_keys)
        return last_id, [Change(row.kind, row.id) for row in rows]

    def _write_state(self) -> None:
        current = self._generations.current
        key = self.settings.encryption_key
        state = ServerState(
            pid=os.getpid(),
            address=self.address,
            manage_address=self.manage_address,
            tls_cert=None if self.settings.tls_cert is None else str(self.settings.tls_cert),
            proxy_protocol=self.settings.proxy_protocol,
            trusted_proxies=self.settings.trusted_proxies,
            version=__version__,
            started_at=self._started_at,
            runtime_folder=str(self._foundation.runtime_folder),
            workers=_states(current.pool.ready if current is not None else []),
            draining=_states(self._generations.draining),
            is_stopping=self._is_draining,
            writer_pid=None if self._writer is None else self._writer.pid,
            reloads=self._reloads,
            last_reload=self._last_reload,
            flags=dict(self._flags),
            encryption_key_id=None if key is None else key_id(key),
        )
        try:
            write_state(self._foundation.settings.home.state_file, state)
        except OSError as exc:
            logger.error("the state file can't be written: %s", exc)

    def _remove_state(self) -> None:
        self._foundation.settings.home.state_file.unlink(missing_ok=True)


def _states(workers: Sequence[WorkerProcess]) -> list[WorkerState]:
    return [WorkerState(pid=worker.pid, started_at=worker.started_at) for worker in workers]
