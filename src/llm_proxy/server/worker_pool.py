"""The gateway workers of one configuration: kept running, told of every change, drained."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol
from weakref import WeakSet

import msgspec

from llm_proxy.errors import LLMProxyError
from llm_proxy.server.channel import Change, Invalidate, WorkerConfig
from llm_proxy.server.drain import IDLE_GRACE_S
from llm_proxy.server.keeper import KILL_WAIT_S, Keeper
from llm_proxy.server.limit_authority import Authority
from llm_proxy.server.settlement import Holder
from llm_proxy.server.tally import Tally
from llm_proxy.server.worker_process import READY_TIMEOUT_S, WorkerProcess

logger = logging.getLogger(__name__)

ACKNOWLEDGE_TIMEOUT_S = 5.0
_CHANGES_PER_MESSAGE = 200  # while a worker obeys them it serves nobody
SHARE_TIMEOUT_S = 2.0
DRAIN_GRACE_S = 8.0  # after its own time limit a worker still hands on counts and records
CUT_GRACE_S = 3.0  # clients that read get a second to learn of it, then records are handed on


class Holders(Protocol):
    """Who keeps account of workers by the names under which they take leases."""

    def begin(self) -> Holder:
        """For a worker that is about to be started."""

    def ended(self, holder: Holder) -> None:
        """Its process is gone, or was never there."""


class _Nobody:
    def begin(self) -> Holder:
        return Holder(host="", id="", ledger=Path())

    def ended(self, holder: Holder) -> None:
        pass


_NOBODY: Final = _Nobody()


class WorkerPool:
    def __init__(
        self,
        command: Sequence[str],
        configs: Sequence[WorkerConfig],
        listeners: Sequence[Sequence[socket.socket]],
        *,
        on_change: Callable[[], None] = lambda: None,
        ready_timeout_s: float = READY_TIMEOUT_S,
        acknowledge_timeout_s: float = ACKNOWLEDGE_TIMEOUT_S,
        drain_grace_s: float = DRAIN_GRACE_S,
        tally: Tally | None = None,
        holders: Holders = _NOBODY,
        authority: Authority | None = None,
    ) -> None:
        """A worker for each of `configs`, with its `listeners`, which remain the caller's.

        `on_change` is called when a worker is ready or gone.
        """
        self._on_change = on_change
        self._acknowledge_timeout_s = acknowledge_timeout_s
        self._drain_grace_s = drain_grace_s
        self._sequence = 0
        self._is_serving = False
        self._is_store_lost = False
        self._counts_alone = any(config.limit_sharers == 0 for config in configs)
        self._silent: WeakSet[WorkerProcess] = WeakSet()  # at the last check

        def keeper(
            slot: int, config: WorkerConfig, sockets: Sequence[socket.socket]
        ) -> Keeper[WorkerProcess]:
            async def launch() -> WorkerProcess:
                holder = holders.begin()
                try:
                    worker = await WorkerProcess.launch(
                        command,
                        listeners=sockets,
                        config=_held_by(config, holder),
                        ready_timeout_s=ready_timeout_s,
                        tally=tally,
                        on_exit=lambda: holders.ended(holder),
                        authority=authority,
                    )
                except BaseException:
                    holders.ended(holder)
                    raise
                if self._is_store_lost:
                    worker.tell_store_state(is_lost=True)
                return worker

            return Keeper(f"worker {slot}", launch, on_change=self._changed)

        self._keepers = [
            keeper(slot, config, sockets)
            for slot, (config, sockets) in enumerate(zip(configs, listeners, strict=True), 1)
        ]

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

    def serve(self) -> None:
        """From now on connections are accepted; by their replacements as soon as they are ready."""
        self._is_serving = True
        for worker in self.ready:
            worker.serve()

    async def share_limits(self) -> None:
        """Those that count by themselves let the authority count, because there will be others."""
        if self._counts_alone:
            self._counts_alone = False
            shared = [
                worker.share_limits(2, timeout_s=SHARE_TIMEOUT_S) for worker in self._children()
            ]
            await asyncio.gather(*shared)

    def _changed(self) -> None:
        if self._is_serving:
            self.serve()
        self._on_change()

    async def publish(self, changes: Sequence[Change]) -> None:
        """When it returns every worker obeys the new state, or is gone.

        Workers that are not ready are told too: they may already serve, their word on its way.
        """
        for start in range(0, len(changes), _CHANGES_PER_MESSAGE):
            await self._publish(list(changes[start : start + _CHANGES_PER_MESSAGE]))

    async def _publish(self, changes: list[Change]) -> None:
        message = self._message(changes)
        await asyncio.gather(*(self._make_obey(worker, message) for worker in self._children()))

    def _message(self, changes: list[Change]) -> Invalidate:
        self._sequence += 1
        return Invalidate(self._sequence, changes)

    def _children(self) -> list[WorkerProcess]:
        return [keeper.child for keeper in self._keepers if keeper.child is not None]

    async def _obeys(self, worker: WorkerProcess, message: Invalidate) -> bool:
        """Otherwise it is being killed."""
        if await worker.invalidate(message, timeout_s=self._acknowledge_timeout_s):
            return True
        logger.error("worker %d did not acknowledge a message in time; killing it", worker.pid)
        worker.kill()
        return False

    async def _make_obey(self, worker: WorkerProcess, message: Invalidate) -> None:
        if await self._obeys(worker, message):
            return
        try:
            async with asyncio.timeout(KILL_WAIT_S):
                await worker.wait()
        except TimeoutError as exc:
            raise LLMProxyError(f"worker {worker.pid} can't be killed; stop the server") from exc

    def tell_store_state(self, *, is_lost: bool) -> None:
        """Those that are started later hear of it, too."""
        self._is_store_lost = is_lost
        for worker in self._children():
            worker.tell_store_state(is_lost=is_lost)

    async def check(self) -> None:
        """Kills workers that gave no sign of life at two checks in a row: one may be a machine's
        pause."""
        message = self._message([])
        await asyncio.gather(*(self._check(worker, message) for worker in self.ready))

    async def _check(self, worker: WorkerProcess, message: Invalidate) -> None:
        if await worker.invalidate(message, timeout_s=self._acknowledge_timeout_s):
            self._silent.discard(worker)
        elif worker in self._silent:
            logger.error("worker %d hangs; killing it", worker.pid)
            worker.kill()
        else:
            self._silent.add(worker)

    async def drain(self, timeout_s: float, *, idle_grace_s: float = IDLE_GRACE_S) -> None:
        """Lets running exchanges finish for up to `timeout_s`, then kills what is left.

        May be called again meanwhile: the last time limit counts.
        """
        self.hurry(timeout_s, idle_grace_s=idle_grace_s)
        # What hangs is killed long before the time limit: it doesn't acknowledge.
        message = self._message([])
        ended, _ = await asyncio.gather(
            self._wait_stopped(timeout_s + self._drain_grace_s),
            asyncio.gather(*(self._obeys(worker, message) for worker in self._children())),
        )
        if not all(ended):
            logger.warning("%d workers did not drain in time: killed", ended.count(False))

    def hurry(self, timeout_s: float, *, idle_grace_s: float = IDLE_GRACE_S) -> None:
        """A new time limit for workers that drain."""
        for keeper in self._keepers:
            keeper.begin_stop(lambda worker: worker.drain(timeout_s, idle_grace_s=idle_grace_s))

    async def cut(self) -> None:
        """Ends what is running, with hardly any time for what comes after."""
        self.hurry(0)
        await self._wait_stopped(CUT_GRACE_S)

    async def kill(self) -> None:
        for keeper in self._keepers:
            keeper.begin_stop(lambda worker: worker.kill())
        await self._wait_stopped(KILL_WAIT_S)

    async def _wait_stopped(self, timeout_s: float) -> list[bool]:
        return await asyncio.gather(*(k.wait_stopped(timeout_s=timeout_s) for k in self._keepers))

    def reopen_logs(self) -> None:
        # Ready ones only: a process that has not set its handler yet would die of the signal.
        for worker in self.ready:
            worker.send_signal(signal.SIGUSR1)


def _held_by(config: WorkerConfig, holder: Holder) -> WorkerConfig:
    return msgspec.structs.replace(
        config, host=holder.host, holder=holder.id, ledger=str(holder.ledger)
    )
