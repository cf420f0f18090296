"""The workers of the present configuration, and those of earlier ones until they have drained."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from llm_proxy.server.channel import Change
from llm_proxy.server.record_writer import RecordWriter
from llm_proxy.server.worker_pool import WorkerPool
from llm_proxy.server.worker_process import WorkerProcess

logger = logging.getLogger(__name__)

MAX_RETIRING = 4  # each is a process, with its memory, for every worker
RETIREMENT_S = 600.0  # for what runs when the configuration changes; an answer may take so long
RETIREMENT_IDLE_S = 5.0  # for kept connections, so that few are closed as they are used
CHECK_EVERY_S = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    pool: WorkerPool
    writer: RecordWriter | None  # where the workers send records; may be an earlier one's


class Generations:
    def __init__(
        self,
        *,
        on_change: Callable[[], None] = lambda: None,
        on_gone: Callable[[Generation], Awaitable[None]],
        retirement_s: float = RETIREMENT_S,
    ) -> None:
        """`on_gone` is awaited when a generation's workers have ended."""
        self._on_change = on_change
        self._on_gone = on_gone
        self._retirement_s = retirement_s
        self._is_store_lost = False
        self._starting: Generation | None = None
        self._retiring: dict[Generation, asyncio.Task[None]] = {}  # the oldest first
        self.current: Generation | None = None

    @property
    def all(self) -> list[Generation]:
        found = [*self._retiring, self.current, self._starting]
        return [generation for generation in found if generation is not None]

    @property
    def draining(self) -> list[WorkerProcess]:
        return [worker for generation in self._retiring for worker in generation.pool.ready]

    async def succeed(self, fresh: Generation) -> None:
        """Makes it the present one once all its workers are ready; raises why it can't be.

        Until then no worker of it accepts a connection, so that nothing is lost when one fails.
        """
        self._starting = fresh  # it hears of changes already
        fresh.pool.tell_store_state(is_lost=self._is_store_lost)
        try:
            await fresh.pool.start()
            if self.current is not None:
                await self.current.pool.share_limits()
        except BaseException:
            await fresh.pool.kill()
            raise
        finally:
            self._starting = None
        fresh.pool.serve()
        previous, self.current = self.current, fresh
        if previous is not None:
            self._retire(previous)
        self._on_change()

    def _retire(self, generation: Generation) -> None:
        name = "workers of an earlier configuration"
        self._retiring[generation] = asyncio.create_task(self._end(generation), name=name)
        excess = len(self._retiring) - MAX_RETIRING
        for oldest in list(self._retiring)[: max(0, excess)]:
            logger.warning("too many reloads: what runs since the oldest of them is cut")
            oldest.pool.hurry(0)

    async def _end(self, generation: Generation) -> None:
        await generation.pool.drain(self._retirement_s, idle_grace_s=RETIREMENT_IDLE_S)
        await self._on_gone(generation)
        del self._retiring[generation]

    async def publish(self, changes: Sequence[Change]) -> None:
        """When it returns every worker obeys the new state, or is gone; draining ones too."""
        await asyncio.gather(*(generation.pool.publish(changes) for generation in self.all))

    def tell_store_state(self, is_healthy: bool) -> None:
        """Whether workers can trust that they learn of every change."""
        self._is_store_lost = not is_healthy
        for generation in self.all:
            generation.pool.tell_store_state(is_lost=not is_healthy)

    async def watch(self) -> None:
        """Goes on until cancelled; a worker that hangs is killed within half a minute."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            await asyncio.gather(*(generation.pool.check() for generation in self.all))

    def begin_drain(self, timeout_s: float) -> None:
        """From now on none is replaced or accepts a connection."""
        for generation in self.all:
            generation.pool.hurry(timeout_s)

    async def drain(self, timeout_s: float) -> None:
        await asyncio.gather(*(generation.pool.drain(timeout_s) for generation in self.all))
        await self._wait_retired()

    async def cut(self) -> None:
        """Ends at once what is running, in a way that can't be taken for its end."""
        await asyncio.gather(*(generation.pool.cut() for generation in self.all))
        await self._wait_retired()

    async def kill(self) -> None:
        await asyncio.gather(*(generation.pool.kill() for generation in self.all))
        await self._wait_retired()

    async def _wait_retired(self) -> None:
        await asyncio.gather(*self._retiring.values())

    def reopen_logs(self) -> None:
        for generation in self.all:
            generation.pool.reopen_logs()
