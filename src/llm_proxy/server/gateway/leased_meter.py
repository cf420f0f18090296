"""What a worker holds of one limit that is not its alone."""

from __future__ import annotations

from typing import Final

from llm_proxy.gcra import MAX_LAG, SECOND, IssuingGcra
from llm_proxy.limits import Limits, RateLimit

_AHEAD: Final = SECOND // 20  # of a rate, when it is that high: twenty questions a second
_SHARES: Final = 4  # a worker holds at most one part in so many of its share unused


class LeasedMeter:
    __slots__ = (
        "_ahead",
        "_most_ahead",
        "full_until",
        "held",
        "is_asked",
        "key",
        "limits",
        "most",
        "peak",
        "rate",
        "ready_at",
        "refused_until",
        "running",
        "spare_slots",
        "stock",
        "valid_until",
    )

    def __init__(self, key: str, limits: Limits, workers: int) -> None:
        self.key = key
        self.is_asked = False  # there is a question under way
        self.stock = self.valid_until = 0  # permits of the rate, and when they end
        self.ready_at = self.refused_until = 0  # when there may be permits again; when to ask
        self._ahead = 1  # permits to ask for
        self.running = self.peak = 0  # requests; the most since the last tick
        self.held = 0  # slots, those in use included
        self.full_until = 0
        self.change(limits, workers)

    def change(self, limits: Limits, workers: int) -> None:
        self.limits = limits
        self.rate = limits.rate
        self.most = limits.max_concurrent
        self.spare_slots = self.most // (_SHARES * workers)
        self._most_ahead = 1 if limits.rate is None else most_ahead(limits.rate)
        self.ready_at = self.refused_until = self.full_until = 0

    def has_permit(self, now: int) -> bool:
        return self.stock > 0 and now <= self.valid_until

    @property
    def lacks_slot(self) -> bool:
        return self.most > 0 and self.running >= self.held

    def next_ahead(self, now: int, *, is_first: bool) -> int:
        """Permits to ask for; twice as many when the last ones were used up in time, else half."""
        if is_first:
            was_enough = now > self.valid_until
            ahead = self._ahead // 2 if was_enough else self._ahead * 2
            self._ahead = max(1, min(ahead, self._most_ahead))
        return self._ahead

    def next_slots(self) -> int:
        return max(1, min(self.spare_slots, 1 + self.held // 2))

    def add(self, permits: int, valid_until: int, now: int) -> None:
        if self.has_permit(now):
            self.valid_until = min(self.valid_until, valid_until)
            self.stock += permits
        else:
            self.valid_until = valid_until
            self.stock = permits

    def is_idle(self, now: int) -> bool:
        is_used = self.is_asked or self.running or self.held or self.stock
        return not is_used and now >= self.refused_until and now > self.valid_until


def most_ahead(rate: RateLimit) -> int:
    """One, unless the rate is high and its burst has room for permits that lie about."""
    issuing = IssuingGcra(rate)
    return max(1, _AHEAD // issuing.interval) if issuing.lag == MAX_LAG else 1
