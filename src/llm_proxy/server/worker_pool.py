"""The gateway workers: one for each listening socket, kept running, told of every change."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Sequence

from llm_proxy.errors import LLMProxyError
from llm_proxy.server.channel import Change, Invalidate, WorkerConfig
from llm_proxy.server.keeper import KILL_WAIT_S, Keeper
from llm_proxy.server.worker_process import READY_TIMEOUT_S, WorkerProcess

logger = logging.getLogger(__name__)

ACKNOWLEDGE_TIMEOUT_S = 5.0
_CHANGES_PER_MESSAGE = 200  # keeps a line of the channel well below a reader's usual 64 KiB
DRAIN_GRACE_S = 8.0  # after its own time limit a worker still hands on counts and records


class WorkerPool:
    def __init__(
        self,
        command: Sequence[str],
        config: WorkerConfig,
        listeners: Sequence[socket.socket],
        *,
        on_change: Callable[[], None] = lambda: None,
        ready_timeout_s: float = READY_TIMEOUT_S,
        acknowledge_timeout_s: float = ACKNOWLEDGE_TIMEOUT_S,
        drain_grace_s: float = DRAIN_GRACE_S,
    ) -> None:
        """Takes over the listeners; `on_change` is called when a worker is ready or gone."""
        self._listeners = listeners
        self._acknowledge_timeout_s = acknowledge_timeout_s
        self._drain_grace_s = drain_grace_s
        self._sequence = 0

        def keeper(slot: int, listener: socket.socket) -> Keeper[WorkerProcess]:
            async def launch() -> WorkerProcess:
                return await WorkerProcess.launch(
                    command, listener=listener, config=config, ready_timeout_s=ready_timeout_s
                )

            return Keeper(f"worker {slot}", launch, on_change=on_change)

        self._keepers = [keeper(slot, listener) for slot, listener in enumerate(listeners, 1)]

    @property
    def expected(self) -> int:
        return len(self._keepers)

    @property
    def ready(self) -> list[WorkerProcess]:
        return [worker for k in self._keepers if (worker := k.ready_child) is not None]

    async def start(self) -> None:
        """Returns when all are ready; if one fails, none is left running and it says why."""
        started = await asyncio.gather(
            *(keeper.start() for keeper in self._keepers), return_exceptions=True
        )
        failures = [result for result in started if isinstance(result, BaseException)]
        if failures:
            await self.kill()
            raise failures[0]

    async def publish(self, changes: Sequence[Change]) -> None:
        """When it returns every worker obeys the new state, or is gone.

        Workers that are not ready are told too: they may already serve, their word on its way.
        """
        for start in range(0, len(changes), _CHANGES_PER_MESSAGE):
            await self._publish(list(changes[start : start + _CHANGES_PER_MESSAGE]))

    async def _publish(self, changes: list[Change]) -> None:
        self._sequence += 1
        message = Invalidate(self._sequence, changes)
        workers = [keeper.child for keeper in self._keepers if keeper.child is not None]
        await asyncio.gather(*(self._make_obey(worker, message) for worker in workers))

    async def _make_obey(self, worker: WorkerProcess, message: Invalidate) -> None:
        if await worker.invalidate(message, timeout_s=self._acknowledge_timeout_s):
            return
        logger.error("worker %d did not acknowledge a change in time; killing it", worker.pid)
        worker.kill()
        try:
            async with asyncio.timeout(KILL_WAIT_S):
                await worker.wait()
        except TimeoutError as exc:
            raise LLMProxyError(f"worker {worker.pid} can't be killed; stop the server") from exc

    async def drain(self, timeout_s: float) -> None:
        """Lets running exchanges finish for up to `timeout_s`, then kills what is left."""
        ended = await self._stop(
            lambda worker: worker.drain(timeout_s), timeout_s=timeout_s + self._drain_grace_s
        )
        if not all(ended):
            logger.warning("%d workers did not drain in time: killed", ended.count(False))

    async def kill(self) -> None:
        await self._stop(lambda worker: worker.kill(), timeout_s=KILL_WAIT_S)

    async def _stop(self, ask: Callable[[WorkerProcess], None], *, timeout_s: float) -> list[bool]:
        for keeper in self._keepers:
            keeper.begin_stop(ask)
        # With the workers' own closed too, new connections are refused instead of left waiting.
        for listener in self._listeners:
            listener.close()
        return await asyncio.gather(
            *(keeper.wait_stopped(timeout_s=timeout_s) for keeper in self._keepers)
        )

    def reopen_logs(self) -> None:
        # Ready ones only: a process that has not set its handler yet would die of the signal.
        for worker in self.ready:
            worker.send_signal(signal.SIGUSR1)
