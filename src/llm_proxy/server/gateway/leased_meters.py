"""The counts of a worker that has others beside it: permits and slots come from an authority.

Where a rate is high, permits for up to 50 ms are asked at once; of many slots, a part of what this
worker's share would be. What isn't used goes back within half a second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from llm_proxy.gcra import MAX_LAG, SECOND
from llm_proxy.limits import Limits
from llm_proxy.server.channel import (
    GrantedLimits,
    LimitsWanted,
    RateGranted,
    RateWanted,
    SlotsWanted,
)
from llm_proxy.server.gateway.leased_meter import LeasedMeter
from llm_proxy.server.gateway.limit_refusals import (
    concurrency_refusal,
    rate_refusal,
    unavailable_refusal,
)
from llm_proxy.server.gateway.meters import (
    LOOKED_AT,
    LOOKED_AT_FIRST,
    MAX_METERS,
    MeterTable,
    Slots,
    epochs,
)
from llm_proxy.server.gateway.remote_limits import PATIENCE, RemoteLimits
from llm_proxy.server.gateway.subjects import Claim, Subject

_BELIEVED: Final = SECOND  # how long a refusal is repeated without asking, at most
_FULL_FOR: Final = SECOND // 50  # … of slots that may be held unused elsewhere
NEVER: Final = 1 << 62


class LeasedMeters:
    def __init__(
        self, authority: RemoteLimits, clock: Callable[[], int], *, most: int = MAX_METERS
    ) -> None:
        self._authority = authority
        authority.on_answer, authority.on_loss = self._answered, self._wake
        self._clock = clock
        self._addresses: MeterTable[LeasedMeter] = MeterTable(most)
        self._others: MeterTable[LeasedMeter] = MeterTable(most)
        self._epoch = next(epochs)
        self._waiting: dict[Callable[[], None], int] = {}  # and since when, the longest first
        self._asked: dict[str, LeasedMeter] = {}  # by key; of the question under way
        self._coming: Counter[tuple[str, str]] = Counter()  # what it is to bring beyond the need
        self._is_unavailable = False  # said the answer that is being handled
        self._holding: dict[LeasedMeter, None] = {}  # permits or slots
        self.refusals: Counter[tuple[str, str]] = Counter()

    def take(self, claim: Claim, waiter: Callable[[], None]) -> Slots[LeasedMeter] | None:
        now = self._clock()
        meters = claim.meters if claim.epoch == self._epoch else self._adapt(claim, now)
        lacks = False
        for meter in meters:
            if meter.rate is not None and (meter.stock <= 0 or now > meter.valid_until):
                lacks = True
            if meter.most and meter.running >= meter.held:
                lacks = True
        if lacks:
            self._refuse_or_ask(claim.subjects, meters, waiter, now)
            return None
        if self._waiting:
            self._waiting.pop(waiter, None)
        marks = []
        for meter in meters:
            meter.stock -= meter.rate is not None
            meter.running += 1
            if meter.running > meter.peak:
                meter.peak = meter.running
            marks.append(meter.valid_until)
        return Slots(meters, marks, self)

    def _adapt(self, claim: Claim, now: int) -> list[LeasedMeter]:
        """Its meters, made and changed where that is needed."""
        self._sweep(now, LOOKED_AT_FIRST)
        meters = []
        workers = self._authority.workers
        for subject in claim.subjects:
            table = self._addresses if subject.limit == "client_ip" else self._others
            key = table.key_for(subject.key)
            meter = table.meters.get(key)
            if meter is None:
                meter = table.meters[key] = LeasedMeter(key, subject.limits, workers)
            if meter.limits != subject.limits:
                self._return_permits(meter, now)
                meter.change(subject.limits, workers)
            meters.append(meter)
        claim.meters, claim.epoch = meters, self._epoch
        return meters

    def _sweep(self, now: int, most: int = LOOKED_AT) -> None:
        if self._addresses.sweep(now, most) + self._others.sweep(now, most):
            self._epoch = next(epochs)  # claims may know meters that are no more

    def _refuse_or_ask(
        self,
        subjects: Sequence[Subject],
        meters: Sequence[LeasedMeter],
        waiter: Callable[[], None],
        now: int,
    ) -> None:
        since = self._waiting.pop(waiter, now)
        self._refuse_known(subjects, meters, now)
        is_unavailable = self._authority.is_lost or self._is_unavailable
        if is_unavailable or now - since > PATIENCE:
            self.refusals[subjects[0].limit, "unavailable"] += 1
            raise unavailable_refusal()
        self._waiting[waiter] = since
        if not self._authority.is_busy:
            self._ask(meters, now)

    def _refuse_known(
        self, subjects: Sequence[Subject], meters: Sequence[LeasedMeter], now: int
    ) -> None:
        """By what the authority said a short while ago; by the longest wait first."""
        waits = [
            (meter.ready_at - now, at)
            for at, meter in enumerate(meters)
            if meter.rate is not None and now < meter.refused_until and not meter.has_permit(now)
        ]
        if waits:
            wait, at = max(waits)
            rate = meters[at].rate
            assert rate is not None
            self.refusals[subjects[at].limit, "rate"] += 1
            raise rate_refusal(subjects[at], rate, wait)
        for subject, meter in zip(subjects, meters, strict=True):
            if now < meter.full_until and meter.lacks_slot:
                self.refusals[subject.limit, "concurrency"] += 1
                raise concurrency_refusal(subject)

    def _ask(self, meters: Sequence[LeasedMeter], now: int) -> None:
        """For what is lacking, unless another request of this turn asked for enough."""
        rates, slots = [], []
        for meter in meters:
            if meter.rate is not None and not meter.has_permit(now) and self._lacks(meter, "rate"):
                self._return_permits(meter, now)  # that have expired
                wanted = meter.next_ahead(now, is_first=meter.key not in self._asked)
                self._coming["rate", meter.key] += wanted - 1
                rates.append(RateWanted(meter.key, meter.rate, wanted))
            if meter.lacks_slot and self._lacks(meter, "slots"):
                wanted = meter.next_slots()
                self._coming["slots", meter.key] += wanted - 1
                slots.append(SlotsWanted(meter.key, meter.most, wanted))
        for meter in meters:
            meter.is_asked = True
            self._asked[meter.key] = meter
        if rates or slots:
            self._authority.ask(LimitsWanted(tuple(rates), tuple(slots)))

    def _lacks(self, meter: LeasedMeter, what: str) -> bool:
        if self._coming[what, meter.key] <= 0:
            return True
        self._coming[what, meter.key] -= 1
        return False

    def _answered(self, granted: Sequence[GrantedLimits]) -> None:
        now = self._clock()
        asked, self._asked = self._asked, {}
        self._coming.clear()
        full = []
        for one in granted:
            self._is_unavailable |= one.is_unavailable
            for rate in one.rates:
                self._receive(asked[rate.key], rate, now)
            for slots in one.slots:
                meter = asked[slots.key]
                meter.held += slots.count
                if slots.is_full:
                    meter.full_until = NEVER  # for those that waited for this answer
                    full.append(meter)
        for meter in asked.values():
            meter.is_asked = False
            self._holding[meter] = None
        self._wake()
        self._is_unavailable = False
        for meter in full:
            meter.full_until = now + _FULL_FOR if meter.spare_slots else 0

    def _receive(self, meter: LeasedMeter, granted: RateGranted, now: int) -> None:
        if granted.wait_s > 0:
            meter.ready_at = now + int(granted.wait_s * SECOND)
            meter.refused_until = min(meter.ready_at, now + _BELIEVED)
        elif granted.permits and now <= granted.valid_until:
            meter.add(granted.permits, granted.valid_until, now)
        elif granted.permits and meter.rate is not None:  # they come too late
            age = now - granted.valid_until + MAX_LAG
            self._authority.give_rate(meter.key, meter.rate, granted.permits, age)

    def _wake(self) -> None:
        for waiter in tuple(self._waiting):
            if waiter in self._waiting:  # no other has cancelled it meanwhile
                waiter()

    def cancel(self, waiter: Callable[[], None]) -> None:
        self._waiting.pop(waiter, None)

    def adopt(self, key: str, limits: Limits, running: int, *, of_addresses: bool) -> LeasedMeter:
        """What was counted before there was an authority, which is told of it."""
        meter = LeasedMeter(key, limits, self._authority.workers)
        meter.running = meter.peak = running
        meter.held = running if meter.most else 0
        (self._addresses if of_addresses else self._others).meters[key] = meter
        self._holding[meter] = None
        return meter

    def give_back(self, slots: Slots[LeasedMeter]) -> None:
        self.end(slots.meters)

    def end(self, meters: Sequence[LeasedMeter]) -> None:
        for meter in meters:
            meter.running -= 1
            if meter.held > meter.running + meter.spare_slots:
                self._return_slots(meter, meter.running + meter.spare_slots)

    def refund(self, slots: Slots[LeasedMeter]) -> None:
        self.give_back(slots)
        now = self._clock()
        for meter, valid_until in zip(slots.meters, slots.marks, strict=True):
            if meter.rate is None:
                continue
            if now <= valid_until and (meter.stock == 0 or meter.valid_until == valid_until):
                meter.stock += 1
                meter.valid_until = valid_until
                self._holding[meter] = None
            else:
                age = now - valid_until + MAX_LAG  # or less
                self._authority.give_rate(meter.key, meter.rate, 1, age)

    def _return_slots(self, meter: LeasedMeter, kept: int) -> None:
        self._authority.give_slots(meter.key, meter.held - kept)
        meter.held = kept

    def _return_permits(self, meter: LeasedMeter, now: int) -> None:
        if meter.stock and meter.rate is not None:
            age = now - meter.valid_until + MAX_LAG  # or less
            self._authority.give_rate(meter.key, meter.rate, meter.stock, age)
        meter.stock = 0

    def check(self) -> None:
        """Gives back what wasn't needed since the last time."""
        now = self._clock()
        self._authority.check()
        for meter in tuple(self._holding):
            if now > meter.valid_until:
                self._return_permits(meter, now)
            if meter.held > meter.peak:
                self._return_slots(meter, meter.peak)
            meter.peak = meter.running
            if not (meter.held or meter.stock):
                del self._holding[meter]
        self._sweep(now)
