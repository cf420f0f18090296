"""The generic cell rate algorithm: exact rates from two numbers a key, in whole nanoseconds.

In any time T it admits at most `burst + T * rate`, and refuses only what would be more. An interval
that is no whole number of nanoseconds is rounded up.
"""

from __future__ import annotations

from typing import Final

from llm_proxy.limits import RateLimit

SECOND: Final = 1_000_000_000
MIN_LAG: Final = SECOND // 200  # a permit's way to a worker takes less
MAX_LAG: Final = SECOND // 10
_UNKNOWN: Final = 1 << 60  # more than any burst


class Gcra:
    """`arrival` is the theoretical one: when the next request would come if all came evenly."""

    __slots__ = ("arrival", "burst", "interval", "tolerance")

    def __init__(self, rate: RateLimit | None) -> None:
        self.arrival = 0
        self._set(rate)

    def _set(self, rate: RateLimit | None) -> None:
        if rate is None:
            self.interval = self.burst = self.tolerance = 0  # never early
            return
        self.interval = -(-rate.window_s * SECOND // rate.requests)
        self.burst = max(1, rate.burst)
        self.tolerance = (self.burst - 1) * self.interval

    def alter(self, rate: RateLimit | None, now: int) -> None:
        """What is used up of the burst stays so in proportion, so that altering a limit there and
        back gives nothing away."""
        debt, whole = max(0, self.arrival - now), self.burst * self.interval
        self._set(rate)
        self.arrival = now + (-(-debt * self.burst * self.interval // whole) if whole else 0)

    def wait(self, now: int) -> int:
        """Until one more conforms; 0 or less: now."""
        return self.arrival - now - self.tolerance

    def charge(self, now: int) -> int:
        """One more; gives the arrival, which `refund` needs."""
        arrival = (self.arrival if self.arrival > now else now) + self.interval
        self.arrival = arrival
        return arrival

    def refund(self, arrival: int, now: int) -> None:
        """It was not used after all. What would have drained without it by now isn't given back:
        that could be more than there was."""
        left = arrival - now
        if left > 0:
            self.arrival -= min(self.interval, left)


class IssuingGcra(Gcra):
    """Of permits that are used at any time up to `lag` after they were issued.

    Of permits issued at n1 ≤ n2 ≤ …, those from the i-th to the j-th may all be used within
    max(0, nj - ni - lag). So up to a burst needs no check, and beyond it issuing waits `lag` more.
    """

    __slots__ = ("_issued", "_since", "lag")

    def __init__(self, rate: RateLimit) -> None:
        super().__init__(rate)
        self._issued = 0  # since `_since`, before which nothing matters any more
        self._since = 0

    def _set(self, rate: RateLimit | None) -> None:
        super()._set(rate)
        # What of the tolerance the lag leaves is what a late question may come late; a larger lag
        # slows the rate itself: by a twentieth, or where even the least is more than that.
        self.lag = min(MAX_LAG, max(MIN_LAG, self.tolerance // 2, self.interval // 20))

    def alter(self, rate: RateLimit | None, now: int) -> None:
        super().alter(rate, now)
        self._issued = _UNKNOWN  # from now on the arrival alone says what is left

    def take(self, now: int, wanted: int) -> int:
        """How many permits are issued."""
        if self.arrival <= now - self.lag:
            self._issued, self._since = 0, now
        arrival = max(self.arrival, now)
        free = max(0, min(wanted, self.burst - self._issued))
        arrival += free * self.interval
        room = now - self.lag + self.tolerance + self.interval - arrival
        late = max(0, min(wanted - free, room // self.interval))
        if not free + late:
            return 0
        self.arrival = arrival + late * self.interval
        self._issued += free + late
        return free + late

    def burden(self, debt: int, now: int) -> None:
        """So much was used up elsewhere, in nanoseconds until all is free again."""
        self.arrival = max(self.arrival, now) + debt
        self._issued = _UNKNOWN

    def wait_for_issue(self, now: int) -> int:
        """Until one more can be issued."""
        return 0 if self._issued < self.burst else max(0, self.wait(now) + self.lag)

    def give_back(self, permits: int, now: int, age: int) -> None:
        """Taken together `age` ago at most, and never used."""
        self.arrival -= max(0, permits * self.interval - age)
        # Nothing was issued for so long before `_since`, so that a few microseconds don't matter.
        if now - age > self._since - self.lag - self.interval:
            self._issued = max(0, self._issued - permits)

    def is_idle(self, now: int) -> bool:
        """A new one would do the same."""
        return self.arrival <= now - self.lag
