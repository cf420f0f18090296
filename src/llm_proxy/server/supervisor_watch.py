"""A worker's look at its supervisor: one that is silent tells of no change either."""

from __future__ import annotations

import logging
from typing import Final, Protocol

logger = logging.getLogger(__name__)

SILENCE_S: Final = 5.0  # it speaks twice a second


class Snapshots(Protocol):
    """What a worker keeps of the store."""

    def store_is_lost(self, grace_s: float) -> None: ...
    def store_is_back(self) -> None: ...


class SupervisorWatch:
    """To be watched by `Timers`."""

    def __init__(self, snapshots: Snapshots, *, grace_s: float) -> None:
        self._snapshots = snapshots
        self._grace_s = grace_s
        self._heard_at: float | None = None  # on the loop's clock
        self._is_silent = False

    def begin(self, now: float) -> None:
        """From now on the supervisor should speak."""
        if self._heard_at is None:
            self._heard_at = now

    def heard(self, now: float, *, is_lost: bool) -> None:
        """Whether it can't reach the database."""
        if self._is_silent:
            logger.info("the supervisor speaks again")
        self._heard_at, self._is_silent = now, False
        if is_lost:
            self._snapshots.store_is_lost(self._grace_s)
        else:
            self._snapshots.store_is_back()

    def check(self, now: float) -> None:
        if self._heard_at is None or self._is_silent or now - self._heard_at < SILENCE_S:
            return
        self._is_silent = True
        logger.error("the supervisor is silent, so changes may be missed: as if the database was")
        self._snapshots.store_is_lost(self._grace_s)
