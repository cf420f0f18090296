"""One coarse clock for every timeout of a process, in place of a timer for each request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final, Protocol

TICK_S: Final = 0.25  # a timeout may come this much late
NEVER: Final = float("inf")


class Watched(Protocol):
    def check(self, now: float) -> None:
        """Called on every tick; must not raise."""


class Timers:
    """Calls `check(now)` of everything it watches; costs nothing while it watches nothing."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        on_lag: Callable[[float, float], None] | None = None,
    ) -> None:
        """`on_lag` is told by every tick how many seconds late it came, and `now`."""
        self._loop = loop
        self._on_lag = on_lag
        self._due = 0.0  # of the next tick; more exact than the loop's clock
        self._watched: set[Watched] = set()
        self._handle: asyncio.TimerHandle | None = None
        self.now = loop.time()  # seconds of the loop's clock, as of the last tick

    def watch(self, thing: Watched) -> None:
        if self._handle is None:
            self.now = self._loop.time()
            self._schedule()
        self._watched.add(thing)

    def forget(self, thing: Watched) -> None:
        self._watched.discard(thing)

    def _schedule(self) -> None:
        self._handle = self._loop.call_later(TICK_S, self._tick)
        self._due = monotonic() + TICK_S

    def _tick(self) -> None:
        now = self.now = self._loop.time()
        if self._on_lag is not None:
            self._on_lag(max(0.0, monotonic() - self._due), now)
        if not self._watched:
            self._handle = None
            return
        # Before anything is checked: no failure of one may end the timeouts of all others.
        self._schedule()
        for thing in tuple(self._watched):
            thing.check(now)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
