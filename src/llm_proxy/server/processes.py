"""A server at work: its workers, its record writer and the control plane, on their foundation."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from llm_proxy import __version__
from llm_proxy.server.change_feed import ChangeFeed
from llm_proxy.server.channel import Change, WorkerConfig
from llm_proxy.server.child_process import module_command
from llm_proxy.server.control.context import ControlContext, HealthReport
from llm_proxy.server.foundation import Foundation
from llm_proxy.server.keeper import Keeper
from llm_proxy.server.runtime_folder import CONTROL_SOCKET, EVENTS_SOCKET
from llm_proxy.server.sockets import address_of
from llm_proxy.server.state import Flags, ServerState, WorkerState, write_state
from llm_proxy.server.worker_pool import WorkerPool
from llm_proxy.server.writer_process import WriterProcess
from llm_proxy.store.changes import changes_after, last_change_id

if TYPE_CHECKING:
    from llm_proxy.server.control_server import ControlServer

logger = logging.getLogger(__name__)

WORKER_COMMAND = module_command("llm_proxy.server.worker")
_WRITER_COMMAND = module_command("llm_proxy.dispatcher.writer")
_WRITER_FINISH_S = 10.0
_WRITER_KILL_S = 0.5


class Processes:
    def __init__(
        self, foundation: Foundation, *, flags: Flags, worker_command: Sequence[str]
    ) -> None:
        """`flags` are kept in the state file, for `server restart`."""
        self._foundation = foundation
        self._flags = flags
        self._started_at = time.time()
        self._is_ready = False
        self._is_draining = False
        self.address = address_of(foundation.listeners[0])
        manage_sockets = foundation.control_sockets[1:]
        self.manage_address = address_of(manage_sockets[0]) if manage_sockets else None
        self._pool = WorkerPool(
            worker_command,
            _worker_config(foundation),
            foundation.listeners,
            on_change=self._write_state,
        )
        self._writer = _writer_keeper(foundation, on_change=self._write_state)
        self._feed: ChangeFeed | None = None
        self._control: ControlServer | None = None

    async def start(self, stack: AsyncExitStack) -> None:
        """Returns when requests are served; the stack then ends at once what it started."""
        stack.callback(self._remove_state)
        self._write_state()
        last_id = await self._foundation.store.run(last_change_id)
        if self._writer is not None:
            stack.push_async_callback(
                self._writer.stop, WriterProcess.kill, timeout_s=_WRITER_KILL_S
            )
        stack.push_async_callback(self._pool.kill)
        await self._start_all(stack)
        self._feed = ChangeFeed(self._read_changes, self.publish, last_id=last_id)
        self._is_ready = True

    async def _start_all(self, stack: AsyncExitStack) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pool.start())
                if self._writer is not None:
                    group.create_task(self._writer.start())
                group.create_task(self._start_control(stack))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _start_control(self, stack: AsyncExitStack) -> None:
        # Importing it takes as long as a worker takes to start, so both happen at once.
        name = "llm_proxy.server.control_server"
        module = await asyncio.to_thread(importlib.import_module, name)
        self._control = module.ControlServer(
            self._control_context(), self._foundation.control_sockets
        )
        stack.push_async_callback(self._control.stop)

    async def run(self) -> None:
        """Goes on until it is cancelled; raises when the control plane fails."""
        assert self._feed is not None
        assert self._control is not None
        async with asyncio.TaskGroup() as group:
            group.create_task(self._feed.run())
            group.create_task(self._control.wait())

    async def drain(self, timeout_s: float) -> None:
        """Workers finish what they have begun, then the writer writes what they sent."""
        self._is_draining = True
        await self._pool.drain(timeout_s)
        if self._writer is not None and not await self._writer.stop(
            WriterProcess.finish, timeout_s=_WRITER_FINISH_S
        ):
            logger.warning("the record writer did not finish in time: killed, records are lost")

    async def kill(self) -> None:
        await self._pool.kill()

    async def publish(self, changes: Sequence[Change]) -> None:
        await self._pool.publish(changes)

    def reopen_logs(self) -> None:
        self._pool.reopen_logs()
        if self._writer is not None and (writer := self._writer.ready_child) is not None:
            writer.send_signal(signal.SIGUSR1)

    def _control_context(self) -> ControlContext:
        settings, providers = self._foundation.settings, self._foundation.providers
        assert settings.management_token is not None
        return ControlContext(
            store=self._foundation.store,
            management_token=settings.management_token,
            apis=tuple(providers.apis),
            default_api=providers.default_api,
            publish=self.publish,
            health=self._health,
        )

    def _health(self) -> HealthReport:
        ready, expected = len(self._pool.ready), self._pool.expected
        # One is enough to be unwell: connections to a dead worker's socket wait for the next.
        checks = {"workers": "ok" if ready == expected else f"{ready} of {expected} running"}
        if self._feed is not None and not self._feed.is_healthy:
            checks["store"] = "unavailable"
        return HealthReport(ready=self._is_ready, draining=self._is_draining, checks=checks)

    async def _read_changes(self, last_id: int) -> tuple[int, list[Change]]:
        last_id, rows = await self._foundation.store.run(changes_after, last_id)
        return last_id, [Change(row.kind, row.id) for row in rows]

    def _write_state(self) -> None:
        workers = [WorkerState(pid=w.pid, started_at=w.started_at) for w in self._pool.ready]
        writer = None if self._writer is None else self._writer.ready_child
        state = ServerState(
            pid=os.getpid(),
            address=self.address,
            manage_address=self.manage_address,
            version=__version__,
            started_at=self._started_at,
            runtime_folder=str(self._foundation.runtime_folder),
            workers=workers,
            writer_pid=None if writer is None else writer.pid,
            flags=dict(self._flags),
        )
        try:
            write_state(self._foundation.settings.home.state_file, state)
        except OSError as exc:
            logger.error("the state file can't be written: %s", exc)

    def _remove_state(self) -> None:
        self._foundation.settings.home.state_file.unlink(missing_ok=True)


def _worker_config(foundation: Foundation) -> WorkerConfig:
    settings, folder = foundation.settings, foundation.runtime_folder
    assert settings.encryption_key is not None
    return WorkerConfig(
        database=str(settings.database_path),
        encryption_key=settings.encryption_key,
        providers=foundation.providers,
        control_socket=str(folder / CONTROL_SOCKET),
        events_socket=None if settings.file_event_log is None else str(folder / EVENTS_SOCKET),
        management_is_public=settings.manage_addr is None,
        max_request_size=settings.max_request_size,
        debug_headers=settings.debug_headers,
        log_level=settings.log_level,
        log_format=settings.log_format,
        log_file=None if settings.log_file is None else str(settings.log_file),
    )


def _writer_keeper(
    foundation: Foundation, *, on_change: Callable[[], None]
) -> Keeper[WriterProcess] | None:
    settings = foundation.settings
    if settings.file_event_log is None:
        return None
    options = {
        "--socket": foundation.runtime_folder / EVENTS_SOCKET,
        "--file": settings.file_event_log,
        "--max-size-mb": settings.log_max_size_mb,
        "--max-backups": settings.log_max_backups,
        "--log-level": settings.log_level,
        "--log-format": settings.log_format,
    }
    if settings.log_file is not None:
        options["--log-file"] = settings.log_file
    arguments = [str(word) for option in options.items() for word in option]
    return Keeper(
        "record writer",
        lambda: WriterProcess.launch([*_WRITER_COMMAND, *arguments]),
        on_change=on_change,
    )
