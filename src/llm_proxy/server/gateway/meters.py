"""The counts of one worker that is alone: nobody else has to be asked."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Final, Generic, Protocol, TypeVar

from llm_proxy.gcra import Gcra
from llm_proxy.limits import Limits
from llm_proxy.server.channel import LimitsState
from llm_proxy.server.gateway.limit_refusals import concurrency_refusal, rate_refusal
from llm_proxy.server.gateway.subjects import Claim, Subject

MAX_METERS: Final = 100_000  # of addresses, and as many of tokens, projects and all requests
LOOKED_AT: Final = 200  # meters at a tick
LOOKED_AT_FIRST: Final = 4  # before some are added
epochs: Final = count(1)  # no two counts ever have the same


H = TypeVar("H")


class Forgettable(Protocol):
    def is_idle(self, now: int) -> bool:
        """A new one would do the same."""


class Heir(Protocol[H]):
    """Counts that go on where these end."""

    def adopt(self, key: str, limits: Limits, running: int, *, of_addresses: bool) -> H: ...
    def end(self, meters: Sequence[H]) -> None: ...


M = TypeVar("M", bound=Forgettable)


class MeterTable(Generic[M]):
    """Meters by key, those that are idle forgotten.

    When it is full of meters that aren't, all further keys of a kind share one: they are refused
    early, but no one gets by uncounted.
    """

    __slots__ = ("_most", "meters")

    def __init__(self, most: int = MAX_METERS) -> None:
        self._most = most
        self.meters: dict[str, M] = {}

    def key_for(self, key: str) -> str:
        """What a meter is kept under."""
        if key in self.meters or len(self.meters) < self._most:
            return key
        return key.partition(":")[0] + ":*"

    def sweep(self, now: int, most: int = LOOKED_AT) -> int:
        """Looks at the meters that weren't looked at for longest; how many were forgotten. One that
        was just added is idle until it is charged."""
        meters = self.meters
        before = len(meters)
        for _ in range(min(most, len(meters))):
            key = next(iter(meters))
            meter = meters.pop(key)
            if not meter.is_idle(now):
                meters[key] = meter
        return before - len(meters)


class Meter(Gcra):
    __slots__ = ("limits", "most", "running")

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits.rate)
        self.running = 0
        self._limit(limits)

    def _limit(self, limits: Limits) -> None:
        self.limits = limits
        self.most = limits.max_concurrent or sys.maxsize

    def change(self, limits: Limits, now: int) -> None:
        """What was counted stays counted."""
        if limits.rate != self.limits.rate:
            self.alter(limits.rate, now)
        self._limit(limits)

    def is_idle(self, now: int) -> bool:
        return not self.running and self.arrival <= now


class Slots(Generic[H]):
    """What a request took of its limits."""

    __slots__ = ("counts", "marks", "meters")

    def __init__(self, meters: Sequence[H], marks: Sequence[int], counts: Counts) -> None:
        self.meters = meters
        self.marks = marks  # what a refund of each needs
        self.counts = counts  # that they were taken from


class Counts(Protocol):
    refusals: Counter[tuple[str, str]]  # by limit, "rate" or "concurrency"

    def take(self, claim: Claim, waiter: Callable[[], None]) -> Slots[Any] | None:
        """Of all, or of none: then it raises Refusal, or calls `waiter` later."""

    def cancel(self, waiter: Callable[[], None]) -> None: ...
    def give_back(self, slots: Slots[Any]) -> None: ...
    def refund(self, slots: Slots[Any]) -> None: ...
    def check(self) -> None: ...


class Meters:
    def __init__(self, clock: Callable[[], int], *, most: int = MAX_METERS) -> None:
        self._clock = clock
        self._addresses: MeterTable[Meter] = MeterTable(most)
        self._others: MeterTable[Meter] = MeterTable(most)
        self._epoch = next(epochs)
        self._end_elsewhere: Callable[[Sequence[Meter]], None] | None = None
        self.refusals: Counter[tuple[str, str]] = Counter()

    def take(self, claim: Claim, waiter: object) -> Slots[Meter]:
        """Of all, or of none: then it raises Refusal. Nobody has to wait."""
        now = self._clock()
        meters = claim.meters if claim.epoch == self._epoch else self._adapt(claim, now)
        for meter in meters:
            if meter.running >= meter.most or meter.arrival - now > meter.tolerance:
                self._refuse(claim.subjects, meters, now)
        marks = []
        for meter in meters:
            meter.running += 1
            arrival = meter.arrival  # what `charge` does, without the call
            meter.arrival = arrival = (arrival if arrival > now else now) + meter.interval
            marks.append(arrival)
        return Slots(meters, marks, self)

    def _adapt(self, claim: Claim, now: int) -> list[Meter]:
        """Its meters, made and changed where that is needed."""
        self._sweep(now, LOOKED_AT_FIRST)
        meters = []
        for subject in claim.subjects:
            table = self._addresses if subject.limit == "client_ip" else self._others
            key = table.key_for(subject.key)
            meter = table.meters.get(key)
            if meter is None:
                meter = table.meters[key] = Meter(subject.limits)
            if meter.limits is not subject.limits:
                meter.change(subject.limits, now)
            meters.append(meter)
        claim.meters, claim.epoch = meters, self._epoch
        return meters

    def _sweep(self, now: int, most: int = LOOKED_AT) -> None:
        if self._addresses.sweep(now, most) + self._others.sweep(now, most):
            self._epoch = next(epochs)  # claims may know meters that are no more

    def _refuse(self, subjects: Sequence[Subject], meters: Sequence[Meter], now: int) -> None:
        """Names the limit that lasts longest: what passes sooner would mislead."""
        wait, at = max((meter.wait(now), at) for at, meter in enumerate(meters))
        rate = subjects[at].limits.rate
        if wait > 0 and rate is not None:
            self.refusals[subjects[at].limit, "rate"] += 1
            raise rate_refusal(subjects[at], rate, wait)
        for subject, meter in zip(subjects, meters, strict=True):
            if meter.running >= meter.most:
                self.refusals[subject.limit, "concurrency"] += 1
                raise concurrency_refusal(subject)

    def give_back(self, slots: Slots[Meter]) -> None:
        for meter in slots.meters:
            meter.running -= 1
        if self._end_elsewhere is not None:
            self._end_elsewhere(slots.meters)

    def hand_over(self, leased: Heir[H]) -> LimitsState:
        """All that isn't idle; what runs is given back to `leased` when it ends."""
        now = self._clock()
        rates, slots = [], []
        successors: dict[Meter, H] = {}
        for table, of_addresses in ((self._addresses, True), (self._others, False)):
            for key, meter in table.meters.items():
                if meter.is_idle(now):
                    continue
                limits, running = meter.limits, meter.running
                successors[meter] = leased.adopt(key, limits, running, of_addresses=of_addresses)
                if limits.rate is not None and meter.arrival > now:
                    rates.append((key, limits.rate, meter.arrival - now))
                if limits.max_concurrent and running:
                    slots.append((key, running))

        def end(meters: Sequence[Meter]) -> None:
            leased.end([successors[meter] for meter in meters])

        self._end_elsewhere = end
        return LimitsState(tuple(rates), tuple(slots))

    def refund(self, slots: Slots[Meter]) -> None:
        if self._end_elsewhere is not None:
            self.give_back(slots)
            return
        now = self._clock()
        for meter, mark in zip(slots.meters, slots.marks, strict=True):
            meter.running -= 1
            meter.refund(mark, now)

    def cancel(self, waiter: object) -> None: ...

    def check(self) -> None:
        self._sweep(self._clock())
