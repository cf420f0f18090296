"""How often, and after what wait, something that failed is tried again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

BASE_S: Final = 0.1  # the first wait at most; doubles with every try
MAX_S: Final = 2.0
SHARE: Final = 0.2  # of the requests of the last seconds may be retries
FLOOR: Final = 10  # retries that are always granted, so that rare requests get theirs
PERIOD_S: Final = 5.0  # the budget looks at this period and the one before


class Retries:
    """Exponential backoff with full jitter, within a budget: when an upstream is down, a retry for
    every request would double its load. Of the retries in any 5 s there are at most 10, or a fifth
    of the requests in the 10 s before the last of them."""

    __slots__ = (
        "_attempts",
        "_clock",
        "_period_ends",
        "_random",
        "_requests",
        "_requests_before",
        "_retries",
        "_retries_before",
        "count",
    )

    def __init__(
        self,
        attempts: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
    ) -> None:
        """`attempts` are tries after the first; `random` gives numbers from 0 to 1."""
        self._attempts = attempts
        self._clock = clock
        self._random = random
        self._period_ends = clock() + PERIOD_S
        self._requests = self._requests_before = 0
        self._retries = self._retries_before = 0
        self.count = 0  # retries granted since the start

    def count_request(self) -> None:
        now = self._clock()
        if now >= self._period_ends:
            self._turn(now)
        self._requests += 1

    def delay(self, tried: int) -> float | None:
        """Seconds to wait after `tried` tries; None: give up. A wait is charged to the budget."""
        if tried > self._attempts:
            return None
        now = self._clock()
        if now >= self._period_ends:
            self._turn(now)
        requests = self._requests + self._requests_before
        if self._retries + self._retries_before >= max(FLOOR, int(SHARE * requests)):
            return None
        self._retries += 1
        self.count += 1
        longest: float = min(MAX_S, BASE_S * 2.0 ** min(tried - 1, 10))
        return longest * self._random()

    def _turn(self, now: float) -> None:
        is_next = now < self._period_ends + PERIOD_S
        self._requests_before = self._requests if is_next else 0
        self._retries_before = self._retries if is_next else 0
        self._requests = self._retries = 0
        self._period_ends = (self._period_ends if is_next else now) + PERIOD_S
