"""What all workers of a server counted, those included that have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from llm_proxy.measurements import Snapshot, Totals
from llm_proxy.server.channel import Refused

TIMEOUT_S: Final = 1.0  # of a worker that is slower the last numbers are used
FRESH_S: Final = 0.1  # anybody may ask for /health: no worker is asked more often than this


class Counting(Protocol):
    """A worker, as its numbers are concerned."""

    snapshot: Snapshot  # the last one known

    async def measure(self, *, timeout_s: float) -> None:
        """Brings `snapshot` up to date, unless that takes too long."""


class Tally:
    def __init__(self, *, timeout_s: float = TIMEOUT_S, fresh_s: float = FRESH_S) -> None:
        self._timeout_s = timeout_s
        self._fresh_s = fresh_s
        self._workers: dict[Counting, None] = {}
        self._history = Totals()  # of those that have ended
        self._collecting = asyncio.Lock()
        self._collected_at = float("-inf")
        self.on_refused: Callable[[Refused], None] = lambda _: None  # told by a worker

    def add(self, worker: Counting) -> None:
        self._workers[worker] = None

    def retire(self, worker: Counting) -> None:
        """It has ended, so its snapshot is its last."""
        del self._workers[worker]
        self._history.add_history(worker.snapshot)

    async def collect(self) -> Totals:
        """Asks every worker, and adds up. Counters never go back."""
        loop = asyncio.get_running_loop()
        async with self._collecting:
            if loop.time() - self._collected_at >= self._fresh_s:
                asked = [worker.measure(timeout_s=self._timeout_s) for worker in self._workers]
                await asyncio.gather(*asked)
                self._collected_at = loop.time()
        totals = self._history.copy()
        for worker in self._workers:
            totals.add(worker.snapshot)
        return totals
