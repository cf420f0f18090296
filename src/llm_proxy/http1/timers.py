"""One coarse clock for every timeout of a process, in place of a timer for each request."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

TICK_S: Final = 0.25  # a timeout may come this much late
NEVER: Final = float("inf")


class Watched(Protocol):
    def check(self, now: float) -> None:
        """Called on every tick; must not raise."""


class Timers:
    """Calls `check(now)` of everything it watches; costs nothing while it watches nothing."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watched: set[Watched] = set()
        self._handle: asyncio.TimerHandle | None = None
        self.now = loop.time()  # seconds of the loop's clock, as of the last tick

    def watch(self, thing: Watched) -> None:
        if self._handle is None:
            self.now = self._loop.time()
            self._handle = self._loop.call_later(TICK_S, self._tick)
        self._watched.add(thing)

    def forget(self, thing: Watched) -> None:
        self._watched.discard(thing)

    def _tick(self) -> None:
        now = self.now = self._loop.time()
        if not self._watched:
            self._handle = None
            return
        # Before anything is checked: no failure of one may end the timeouts of all others.
        self._handle = self._loop.call_later(TICK_S, self._tick)
        for thing in tuple(self._watched):
            thing.check(now)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
