"""The highest rate that meets a service level: doubling, bisection, then confirmation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from llm_proxy.benchmark.precision import format_rate
from llm_proxy.benchmark.report import FindMax, Probe

MOST_PROBES: Final = 25
PRECISION: Final = 0.05  # the bisection ends when its bounds are as close
CONFIRMATIONS: Final = 2
LOWEST_RATE: Final = 0.1

Try = Callable[[float], Awaitable[Probe]]


class _Ended(Exception):
    """The search can't go on; its message says why."""


class Search:
    """Keeps every probe, so that the report shows how the answer was found."""

    def __init__(self, probe: Try, slo: Sequence[str]) -> None:
        self._probe = probe
        self._slo = tuple(slo)
        self._probes: list[Probe] = []

    async def run(self, start: float) -> FindMax:
        """Begins with `start` requests a second."""
        try:
            low, high = await self._bounds(start)
            if low == 0.0:
                return self._found(None, "Even the lowest rate that was tried missed the limits.")
            return await self._confirmed(await self._bisected(low, high))
        except _Ended as exc:
            return self._found(self._best(), str(exc))

    def interrupted(self) -> FindMax:
        """What is known when the search is given up."""
        return self._found(self._best(), "Not confirmed: the search was interrupted.")

    async def _bounds(self, start: float) -> tuple[float, float]:
        """A rate that passed, 0 for none, and a higher one that didn't."""
        if await self._passes(start):
            rate = start
            while await self._passes(rate * 2):
                rate *= 2
            return rate, rate * 2
        rate = start
        while rate / 2 >= LOWEST_RATE:
            rate /= 2
            if await self._passes(rate):
                return rate, rate * 2
        return 0.0, rate

    async def _bisected(self, low: float, high: float) -> float:
        while high - low > PRECISION * low:
            middle = (low + high) / 2
            low, high = (middle, high) if await self._passes(middle) else (low, middle)
        return low

    async def _confirmed(self, rate: float) -> FindMax:
        missed = 0
        for _ in range(CONFIRMATIONS):
            missed += not await self._passes(rate, is_confirmation=True)
        if missed:
            note = (
                f"Contradicted: {format_rate(rate)}/s met the limits once, "
                f"and missed them in {missed} of {CONFIRMATIONS} confirming windows."
            )
        else:
            note = (
                f"Confirmed: {format_rate(rate)}/s met the limits in {CONFIRMATIONS} more windows."
            )
        return self._found(rate, note, confirmed=not missed)

    async def _passes(self, rate: float, *, is_confirmation: bool = False) -> bool:
        probe = await self._look(rate, is_confirmation)
        if probe.rig_bound and not probe.passed:  # once may have been an accident
            probe = await self._look(rate, is_confirmation)
        if probe.rig_bound and not probe.passed:
            raise _Ended(
                f"Bound by the rig: at {format_rate(rate)}/s the generator itself was the limit; "
                "use more --processes, or another machine."
            )
        return probe.passed

    async def _look(self, rate: float, is_confirmation: bool) -> Probe:
        if len(self._probes) == MOST_PROBES:
            raise _Ended(f"Not confirmed: the search ended after {MOST_PROBES} probes.")
        probe = await self._probe(rate)
        self._probes.append(msgspec.structs.replace(probe, is_confirmation=is_confirmation))
        return probe

    def _best(self) -> float | None:
        return max((probe.rate for probe in self._probes if probe.passed), default=None)

    def _found(self, rate: float | None, note: str, *, confirmed: bool = False) -> FindMax:
        return FindMax(
            slo=self._slo, rate=rate, confirmed=confirmed, probes=tuple(self._probes), note=note
        )
