"""The authority of one host: counts in the memory of the supervisor, which outlive its workers."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Final

from llm_proxy.gcra import SECOND, IssuingGcra
from llm_proxy.limits import RateLimit
from llm_proxy.measurements import Series, Snapshot
from llm_proxy.server.channel import LimitsState
from llm_proxy.server.limit_authority import RatePermits

MAX_RATES: Final = 1_000_000  # keys whose rate is in use; further ones are refused
_LOOKED_AT: Final = 2  # keys, whenever one is added


class HostAuthority:
    def __init__(
        self, *, clock: Callable[[], int] = time.monotonic_ns, most_rates: int = MAX_RATES
    ) -> None:
        self._clock = clock
        self._most_rates = most_rates
        self._rates: dict[str, tuple[RateLimit, IssuingGcra]] = {}
        self._slots: dict[str, int] = {}  # taken, by key
        self._held: defaultdict[str, dict[str, int]] = defaultdict(dict)  # by holder and key

    @property
    def slots(self) -> int:
        """All that are taken."""
        return sum(self._slots.values())

    def snapshot(self) -> Snapshot:
        return Snapshot(gauges=(Series("limit_slots_leased", (), self.slots),))

    async def take_rate(self, key: str, rate: RateLimit, wanted: int) -> RatePermits:
        now = self._clock()
        gcra = self._gcra(key, rate, now)
        if gcra is None:
            return RatePermits(0, wait_s=1.0)
        permits = gcra.take(now, wanted)
        if permits:
            return RatePermits(permits, valid_until=now + gcra.lag)
        return RatePermits(0, wait_s=gcra.wait_for_issue(now) / SECOND)

    def _gcra(self, key: str, rate: RateLimit, now: int) -> IssuingGcra | None:
        known = self._rates.get(key)
        if known is None:
            self._sweep(now)
            if len(self._rates) >= self._most_rates:
                return None
            known = self._rates[key] = rate, IssuingGcra(rate)
        last, gcra = known
        if last != rate:
            gcra.alter(rate, now)
            self._rates[key] = rate, gcra
        return gcra

    def _sweep(self, now: int) -> None:
        """Looks at the keys that weren't looked at for longest, and forgets those not in use."""
        for _ in range(min(_LOOKED_AT, len(self._rates))):
            key = next(iter(self._rates))
            known = self._rates.pop(key)
            if not known[1].is_idle(now):
                self._rates[key] = known

    async def give_rate(self, key: str, rate: RateLimit, permits: int, age_s: float) -> None:
        known = self._rates.get(key)
        if known is not None and known[0] == rate:
            known[1].give_back(permits, self._clock(), int(age_s * SECOND))

    async def take_slots(self, key: str, most: int, wanted: int, holder: str) -> int:
        taken = self._slots.get(key, 0)
        granted = min(wanted, most - taken)
        if granted <= 0:
            return 0
        self._slots[key] = taken + granted
        held = self._held[holder]
        held[key] = held.get(key, 0) + granted
        return granted

    async def give_slots(self, key: str, count: int, holder: str) -> None:
        held = self._held[holder]
        given = min(count, held.get(key, 0))  # nobody gives what it doesn't hold
        _subtract(held, key, given)
        _subtract(self._slots, key, given)
        if not held:
            del self._held[holder]

    def adopt(self, state: LimitsState, holder: str) -> None:
        """What a worker counted by itself so far."""
        now = self._clock()
        for key, rate, debt in state.rates:
            gcra = self._gcra(key, rate, now)
            if gcra is not None:
                gcra.burden(debt, now)
        for key, count in state.slots:
            _subtract(self._slots, key, -count)
            _subtract(self._held[holder], key, -count)

    async def forget(self, holder: str) -> None:
        for key, count in self._held.pop(holder, {}).items():
            _subtract(self._slots, key, count)

    async def close(self) -> None:
        pass


def _subtract(counts: dict[str, int], key: str, count: int) -> None:
    left = counts.get(key, 0) - count
    if left:
        counts[key] = left
    else:
        counts.pop(key, None)
