"""The circuit breaker of one api and credential: an upstream that keeps failing gets a rest.

Closed: everything passes, failures in a row are counted. Open, after `failures` of them: nothing
passes until `cooldown` is over. Then half-open: one request passes as the probe, and what becomes
of it decides. A probe that is silent for a whole cooldown gets company, one more each cooldown.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from math import ceil
from time import time
from typing import Final, Literal

from llm_proxy.errors import Refusal
from llm_proxy.providers import CircuitBreaker

logger = logging.getLogger(__name__)

State = Literal["closed", "open", "half_open"]

MAX_PROBES: Final = 4  # whose word is waited for; of older ones nothing is expected any more


class Breaker:
    __slots__ = (
        "_api",
        "_clock",
        "_limits",
        "_on_trip",
        "_probes",
        "_rests_until",
        "failed_at",
        "failures",
        "is_tripped",
        "reason",
    )

    def __init__(
        self,
        limits: CircuitBreaker,
        clock: Callable[[], float],
        *,
        api: str = "",
        on_trip: Callable[[], None] = lambda: None,
    ) -> None:
        """`api` is for messages; `on_trip` is called whenever it opens."""
        self._limits = limits
        self._clock = clock
        self._api = api
        self._on_trip = on_trip
        self._probes: deque[object] = deque(maxlen=MAX_PROBES)
        self._rests_until = 0.0  # on the clock; nothing passes before
        self.is_tripped = False
        self.failures = 0  # in a row
        self.reason = ""  # of the last failure, in words without secrets
        self.failed_at = 0.0  # Unix seconds

    @property
    def state(self) -> State:
        if not self.is_tripped:
            return "closed"
        return "half_open" if self._probes or self._clock() >= self._rests_until else "open"

    def admit(self, who: object) -> None:
        """Raises Refusal unless `who` may try; `who` then reports to one of the other methods."""
        if not self.is_tripped:
            return
        now = self._clock()
        if now < self._rests_until:
            raise self._refusal(self._rests_until - now)
        self._probes.append(who)
        self._rests_until = now + self._limits.cooldown

    def answered(self, who: object, status: int) -> None:
        """The head of the answer came."""
        if status >= 500:
            self.failed(who, f"status {status}")
        elif not self.is_tripped:
            self.failures = 0
        elif who in self._probes:
            self._close()

    def failed(self, who: object, reason: str) -> None:
        """No connection, no answer in time, or one that can't be understood."""
        if self.is_tripped:
            if who not in self._probes:
                return  # sent before it opened: says nothing about now
            self._probes.remove(who)
        self.reason = reason.rstrip(".")
        self.failed_at = time()
        self.failures += 1
        if self.is_tripped or 0 < self._limits.failures <= self.failures:
            self._open()

    def abandoned(self, who: object) -> None:
        """The client hung up, which says nothing about the upstream; the next may try."""
        if who in self._probes:
            self._probes.remove(who)
            if not self._probes:
                self._rests_until = self._clock()

    def _open(self) -> None:
        if not self.is_tripped:
            logger.warning(
                "circuit of the api %r opened after %d failures in a row (%s)",
                self._api,
                self.failures,
                self.reason,
            )
        self.is_tripped = True
        self._rests_until = self._clock() + self._limits.cooldown
        self._on_trip()

    def _close(self) -> None:
        logger.info("circuit of the api %r closed: the upstream answers again", self._api)
        self.is_tripped = False
        self.failures = 0
        self._probes.clear()

    def _refusal(self, remaining_s: float) -> Refusal:
        wait_s = max(1, ceil(remaining_s))
        when = "one request is trying it now" if self._probes else f"tried again in {wait_s} s"
        return Refusal(
            "circuit_open",
            f"The upstream of the api {self._api!r} failed {self.failures} times in a row "
            f"(last: {self.reason}); {when}.",
            details={"api": self._api, "last_failure": self.reason, "retry_after_seconds": wait_s},
            headers={"Retry-After": str(wait_s)},
        )
