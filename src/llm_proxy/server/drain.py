"""How a worker's connections end: idle ones soon, what runs until a deadline, the rest is cut."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Set
from typing import Final, Protocol

logger = logging.getLogger(__name__)

DEFAULT_DRAIN_S: Final = 30.0
IDLE_GRACE_S: Final = 0.5
ACCEPTED_LATE_S: Final = 0.1  # uvloop tells of a connection a tick after the kernel accepted it
GREETED_LATE_S: Final = 1.0  # and of one that begins with a handshake or a header, after that
_CUT_S: Final = 1.0  # for the ends of what was cut to reach clients that read
_POLL_S: Final = 0.05


class Connection(Protocol):
    def drain(self, idle_grace_s: float) -> None:
        """Ends once nothing has run for so long."""

    def cut(self) -> None:
        """Ends what is running, in a way that can't be taken for its end."""

    def abort(self) -> None: ...


class Draining:
    def __init__(
        self, connections: Set[Connection], *, accepted_late_s: float = ACCEPTED_LATE_S
    ) -> None:
        """`connections` are those open at any time; one that was accepted is soon among them."""
        self._connections = connections
        self._accepted_late_s = accepted_late_s
        self._loop = asyncio.get_running_loop()
        self._deadline = math.inf
        self._idle_grace_s = IDLE_GRACE_S
        self._is_told = False  # to the connections
        self.is_asked = asyncio.Event()

    def ask(self, timeout_s: float, idle_grace_s: float = IDLE_GRACE_S) -> None:
        """May be asked again while it drains: the last time limit counts."""
        self._deadline = self._loop.time() + timeout_s
        self._idle_grace_s = idle_grace_s
        self._is_told = False
        self.is_asked.set()

    def ask_unless_asked(self) -> None:
        if not self.is_asked.is_set():
            self.ask(DEFAULT_DRAIN_S)

    def hurry(self) -> None:
        """The supervisor is gone, and with it soon whoever takes our records."""
        limit_s = max(0.0, self._deadline - self._loop.time())
        self.ask(min(limit_s, DEFAULT_DRAIN_S))

    async def run(self) -> None:
        """Call it when nothing is accepted any more."""
        await asyncio.sleep(self._accepted_late_s)
        while self._connections and self._loop.time() < self._deadline:
            if not self._is_told:
                self._is_told = True
                for connection in tuple(self._connections):
                    connection.drain(self._idle_grace_s)
            await asyncio.sleep(_POLL_S)
        if self._connections:
            await self._cut()

    async def _cut(self) -> None:
        logger.warning("connections cut after the drain: %d", len(self._connections))
        for connection in tuple(self._connections):
            connection.cut()
        end = self._loop.time() + _CUT_S
        while self._connections and self._loop.time() < end:
            await asyncio.sleep(_POLL_S)
        for connection in tuple(self._connections):
            connection.abort()
