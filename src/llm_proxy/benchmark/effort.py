"""What a generator process did while a load lasted, so that it can be told from the target."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from time import monotonic_ns, process_time
from typing import Final

from llm_proxy.benchmark.loop_lag import LoopLag

_SCHEDULING: Final = Path("/proc/self/schedstat")


class Effort:
    """Begins when it is made; waiting for the last answers, when the load is over, is no work."""

    def __init__(
        self,
        duration_s: float | None,
        sent: Callable[[], int],
        *,
        scheduling: Path = _SCHEDULING,
    ) -> None:
        self.lag = LoopLag()
        self.cpu_s = self.wall_s = self.waited_s = 0.0
        self.sent = 0
        self._sent = sent
        self._scheduling = scheduling
        self._began = process_time(), waited_for_core_s(scheduling), monotonic_ns()
        self._is_over = False
        self._end: asyncio.TimerHandle | None = None
        if duration_s is not None:
            self._end = asyncio.get_running_loop().call_later(duration_s, self.end)

    def end(self) -> None:
        """Only the first time counts."""
        if self._is_over:
            return
        self._is_over = True
        if self._end is not None:
            self._end.cancel()
        self.lag.close()
        cpu_s, waited_s, began_ns = self._began
        self.cpu_s = process_time() - cpu_s
        self.waited_s = waited_for_core_s(self._scheduling) - waited_s
        self.wall_s = (monotonic_ns() - began_ns) / 1e9
        self.sent = self._sent()


def waited_for_core_s(scheduling: Path = _SCHEDULING) -> float:
    """How long this process's first thread was ready to run, but others did; 0.0 where the system
    doesn't say (the second number is that, see "schedstat" of Linux's documentation)."""
    try:
        return int(scheduling.read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
