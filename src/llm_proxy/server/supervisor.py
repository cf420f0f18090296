"""The process that `server start` becomes: it starts, serves until told to stop, and drains."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from llm_proxy.errors import LLMProxyError
from llm_proxy.logs import reopen_logs
from llm_proxy.server.daemon import redirect_output
from llm_proxy.server.foundation import lay_foundation
from llm_proxy.server.processes import WORKER_COMMAND, Processes
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
        is_daemon: bool = False,
        worker_command: Sequence[str] = WORKER_COMMAND,
        drain_timeout_s: float = DRAIN_TIMEOUT_S,
    ) -> None:
        """`announce` is called when requests are served; all paths in `settings` are absolute."""
        self._settings = settings
        self._flags = flags
        self._announce = announce
        self._is_daemon = is_daemon
        self._worker_command = worker_command
        self._drain_timeout_s = drain_timeout_s
        self._processes: Processes | None = None
        self._stop = asyncio.Event()
        self._stop_at_once = asyncio.Event()

    async def run(self) -> int:
        """The exit code. A failed start raises LLMProxyError and leaves nothing behind."""
        handlers = {
            signal.SIGTERM: self._ask_to_stop,
            signal.SIGINT: self._ask_to_stop,
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
        failed = await _finishes_before(running, self._stop)
        logger.info("draining")
        draining = asyncio.create_task(processes.drain(self._drain_timeout_s))
        if not await _finishes_before(draining, self._stop_at_once):
            await processes.kill()
            logger.warning("stopped at once: running requests were cut")
            return _INTERRUPTED
        draining.result()
        if failed:
            logger.error("the control plane failed", exc_info=running.exception())
            raise LLMProxyError("the control plane failed; see the log")
        logger.info("stopped")
        return 0

    def _ask_to_stop(self) -> None:
        (self._stop_at_once if self._stop.is_set() else self._stop).set()

    def _hang_up(self) -> None:
        if self._is_daemon:
            logger.info("SIGHUP: this version can't reload; use `llm-proxy server restart`")
        else:
            self._ask_to_stop()

    def _reopen_logs(self) -> None:
        reopen_logs()
        if self._is_daemon and self._settings.log_file is not None:
            redirect_output(self._settings.log_file)
        if self._processes is not None:
            self._processes.reopen_logs()


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
