"""The process that `server start` becomes: it starts, serves until told to stop, and drains."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

from llm_proxy.errors import LLMProxyError
from llm_proxy.logs import configure_logging, reopen_logs
from llm_proxy.server.daemon import redirect_output
from llm_proxy.server.foundation import lay_foundation
from llm_proxy.server.processes import WORKER_COMMAND, Processes
from llm_proxy.server.reloader import Reloader
from llm_proxy.server.signals import handling_signals
from llm_proxy.server.state import Flags
from llm_proxy.settings import Settings
from llm_proxy.store.projects import list_projects

logger = logging.getLogger(__name__)

DRAIN_TIMEOUT_S = 30.0
_INTERRUPTED = 130  # exit code


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """What is worth telling whoever started the server."""

    pid: int
    address: str
    manage_address: str | None
    created_secrets: list[str]  # paths of files
    has_projects: bool


class Supervisor:
    def __init__(
        self,
        settings: Settings,
        *,
        flags: Flags,
        announce: Callable[[Started], None],
        reread: Callable[[], Settings],
        is_daemon: bool = False,
        worker_command: Sequence[str] = WORKER_COMMAND,
        drain_timeout_s: float = DRAIN_TIMEOUT_S,
    ) -> None:
        """`announce` is called when requests are served, `reread` for the settings of a reload.

        All paths in settings are absolute.
        """
        self._settings = settings
        self._flags = flags
        self._announce = announce
        self._reread = reread
        self._is_daemon = is_daemon
        self._worker_command = worker_command
        self._drain_timeout_s = drain_timeout_s
        self._processes: Processes | None = None
        self._terminal = None if is_daemon else _terminal()
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()

    async def run(self) -> int:
        """The exit code. A failed start raises LLMProxyError and leaves nothing behind."""
        handlers = {
            signal.SIGTERM: self._stop.set,
            signal.SIGINT: self._stop.set,
            signal.SIGHUP: self._hang_up,
            signal.SIGUSR1: self._reopen_logs,
        }
        with handling_signals(handlers):
            async with AsyncExitStack() as stack:
                starting = asyncio.create_task(self._start(stack))
                if not await _finishes_before(starting, self._stop):
                    return _INTERRUPTED
                return await self._serve(starting.result())

    async def _start(self, stack: AsyncExitStack) -> Processes:
        foundation = await lay_foundation(self._settings, stack)
        processes = Processes(foundation, flags=self._flags, worker_command=self._worker_command)
        self._processes = processes
        await processes.start(stack)
        projects = await foundation.store.run(list_projects, limit=1)
        logger.info("ready on %s (pid %d)", processes.address, os.getpid())
        self._announce(
            Started(
                pid=os.getpid(),
                address=processes.address,
                manage_address=processes.manage_address,
                created_secrets=[str(path) for path in foundation.created_secrets],
                has_projects=projects.total > 0,
            )
        )
        return processes

    async def _serve(self, processes: Processes) -> int:
        running = asyncio.create_task(processes.run())
        reloader = Reloader(processes, self._reread, on_reload=self._apply)
        reloading = asyncio.create_task(reloader.run(self._reload))
        failed = await _finishes_before(running, self._stop)
        self._stop.clear()  # for a second signal
        reloading.cancel()  # what it had begun is undone
        await asyncio.gather(reloading, return_exceptions=True)
        if not await self._drain(processes):
            return _INTERRUPTED
        if failed:
            logger.error("the control plane failed", exc_info=running.exception())
            raise LLMProxyError("the control plane failed; see the log")
        logger.info("stopped")
        return 0

    async def _drain(self, processes: Processes) -> bool:
        """False when it was told to end at once."""
        wanted_s = processes.take_stop_request()
        timeout_s = self._drain_timeout_s if wanted_s is None else wanted_s
        while True:
            logger.info("draining for %g s at most", timeout_s)
            draining = asyncio.create_task(processes.drain(timeout_s))
            if await _finishes_before(draining, self._stop):
                draining.result()
                return True
            # `server stop` says how long it waits; any other second signal is impatience.
            wanted_s = processes.take_stop_request()
            if wanted_s is None:
                logger.warning("stopped at once: running requests are cut")
                await processes.cut()
                return False
            timeout_s = wanted_s
            self._stop.clear()

    def _hang_up(self) -> None:
        """Reloads; but when it is our terminal that hung up, stops."""
        has_lost_terminal = self._terminal is not None and not os.isatty(self._terminal)
        (self._stop if has_lost_terminal else self._reload).set()

    def _apply(self, settings: Settings) -> None:
        before, self._settings = self._settings, settings
        if _logging_of(before) == _logging_of(settings):
            return
        try:
            configure_logging(*_logging_of(settings))
            self._redirect_output()
        except LLMProxyError as exc:
            logger.error("%s", exc)

    def _reopen_logs(self) -> None:
        reopen_logs()
        self._redirect_output()
        if self._processes is not None:
            self._processes.reopen_logs()

    def _redirect_output(self) -> None:
        if self._is_daemon and self._settings.log_file is not None:
            redirect_output(self._settings.log_file)


def _logging_of(settings: Settings) -> tuple[str, str, Path | None]:
    return settings.log_level, settings.log_format, settings.log_file


def _terminal() -> int | None:
    """A descriptor of the terminal that this process runs on."""
    return next((number for number in (2, 1, 0) if os.isatty(number)), None)


async def _finishes_before(task: asyncio.Task[Any], event: asyncio.Event) -> bool:
    """Whether the task ended first; otherwise it is cancelled and has ended all the same."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        if not (has_finished := task.done()):
            task.cancel()
        await asyncio.gather(task, waiting, return_exceptions=True)
    return has_finished
