"""The highest rates that keep limits: doubling, bisection, then confirmation of each.

What one limit's search learns, the others know: whoever keeps one limit keeps all looser ones.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from llm_proxy.benchmark.precision import format_rate
from llm_proxy.benchmark.report import Probe

PRECISION: Final = 0.05  # the bisection ends when its bounds are as close
CONFIRMATIONS: Final = 2
LOWEST_RATE: Final = 0.1
_MOST_LISTED: Final = 3
_DESCENT: Final = 8  # while nothing passes: idle or not, a slow target stays slow

Keeps = Callable[[Probe], bool]  # one limit
Try = Callable[[float, int], Awaitable[Probe]]  # at a rate, for the limit of that index


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The search for one limit."""

    rate: float | None
    note: str  # a sentence
    confirmed: bool = False


class _Ended(Exception):
    """The search for one limit can't go on; its message says why."""


class RateSearch:
    def __init__(
        self,
        probe: Try,
        limits: Sequence[Keeps],
        *,
        most_probes: int,
        lowest_rate: float = LOWEST_RATE,
    ) -> None:
        """`limits`: the strictest first."""
        self.probes: list[Probe] = []
        self._try = probe
        self._limits = tuple(limits)
        self._most_probes = most_probes
        self._lowest_rate = lowest_rate
        self._answers: dict[int, Answer] = {}

    async def run(self, start: float) -> None:
        """Begins with `start` requests a second, and with the loosest limit: rates that it needs
        tell which misses of stricter ones are noise. A probe may unsettle earlier answers, too."""
        known = -1
        while known < len(self.probes):
            known = len(self.probes)
            for limit in reversed(range(len(self._limits))):
                self._answers[limit] = await self._answer(limit, start)

    @property
    def answers(self) -> list[Answer]:
        """One for each limit, whether the search came to it or was given up before."""
        return [self._known(limit) for limit in range(len(self._limits))]

    @property
    def chosen(self) -> int:
        """The probe whose figures stand for the search: see `window`; else the last one."""
        for keeps, answer in zip(self._limits, self.answers, strict=True):
            if answer.rate is not None:
                return self.window(keeps, answer.rate)
        return max(len(self.probes) - 1, 0)

    def window(self, keeps: Keeps, rate: float) -> int:
        """The last probe at this rate that kept the limit."""
        return max(i for i, one in enumerate(self.probes) if one.rate == rate and keeps(one))

    def noise(self, keeps: Keeps) -> str:
        """A sentence where misses below the highest rate, or the others above, contradict it."""
        rate, _ = self._bounds(keeps)
        verdicts = self._verdicts(keeps).items()
        parts = (
            ("lower rates missed it", [one for one, kept in verdicts if not kept and one < rate]),
            ("higher rates kept it", [one for one, kept in verdicts if kept and one > rate]),
        )
        found = [f"{what} ({_listed(rates)})" for what, rates in parts if rates]
        return f"Noise: {', '.join(found)}." if found else ""

    def _known(self, limit: int) -> Answer:
        rate, answer = self._best(self._limits[limit]), self._answers.get(limit)
        if answer is not None and answer.rate == rate:
            return answer
        return Answer(rate=rate, note="Not confirmed: the search was interrupted.")

    async def _answer(self, limit: int, start: float) -> Answer:
        keeps = self._limits[limit]
        try:
            while True:
                while (rate := self._next(keeps, start)) is not None:
                    await self._look(rate, limit)
                rate = self._best(keeps)
                if rate is None:
                    note = "Even the lowest rate that was tried missed the limits."
                    return Answer(rate=None, note=note)
                answer = await self._confirmed(rate, limit)
                if self._best(keeps) == rate:  # else its windows refuted it: on below
                    return answer
        except _Ended as exc:
            return Answer(rate=self._best(keeps), note=str(exc))

    def _next(self, keeps: Keeps, start: float) -> float | None:
        """The rate to try; None: the bounds are close enough."""
        low, high = self._bounds(keeps)
        if high < math.inf and self._is_doubtful(high, keeps, start):
            return high
        if high == math.inf:
            return low * 2 if low else start
        if not low:
            return max(high / _DESCENT, self._lowest_rate) if high > self._lowest_rate else None
        if high - low <= PRECISION * low:
            return None
        return (low + high) / 2 if high <= low * 2 else math.sqrt(low * high)

    async def _confirmed(self, rate: float, limit: int) -> Answer:
        keeps = self._limits[limit]
        while len(windows := self._confirmations(rate, keeps)) < CONFIRMATIONS:
            self._check_rig(rate, keeps, is_confirmation=True)
            await self._look(rate, limit, is_confirmation=True)
        missed, count = sum(not keeps(window) for window in windows), len(windows)
        if missed:
            note = (
                f"Contradicted: {format_rate(rate)}/s met the limits once, "
                f"and missed them in {missed} of {count} confirming windows."
            )
        else:
            note = f"Confirmed: {format_rate(rate)}/s met the limits in {count} more windows."
        return Answer(rate=rate, note=note, confirmed=not missed)

    async def _look(self, rate: float, limit: int, *, is_confirmation: bool = False) -> None:
        if len(self.probes) == self._most_probes:
            raise _Ended(f"Not confirmed: the search ended after {self._most_probes} probes.")
        probe = await self._try(rate, limit)
        self.probes.append(msgspec.structs.replace(probe, is_confirmation=is_confirmation))

    def _is_doubtful(self, rate: float, keeps: Keeps, start: float) -> bool:
        """Whether a miss there may have been an accident; no rate is tried more than twice."""
        is_rigs = self._check_rig(rate, keeps)
        is_noise = any(one.rate > rate and keeps(one) for one in self.probes)
        return len(self._at(rate)) == 1 and (is_rigs or is_noise or rate == start)

    def _check_rig(self, rate: float, keeps: Keeps, *, is_confirmation: bool = False) -> bool:
        """Whether the rig spoiled a probe there. Twice ends the search: once may be an accident."""
        tries = (one for one in self._at(rate) if one.is_confirmation == is_confirmation)
        spoiled = [one for one in tries if one.rig_bound and not keeps(one)]
        if len(spoiled) > 1:
            raise _Ended(
                f"Bound by the rig: at {format_rate(rate)}/s the generator itself was the limit; "
                "use more --processes, or another machine."
            )
        return bool(spoiled)

    def _best(self, keeps: Keeps) -> float | None:
        return self._bounds(keeps)[0] or None

    def _bounds(self, keeps: Keeps) -> tuple[float, float]:
        """The highest rate that kept it, and the next one, which didn't; 0, and infinity.

        Where noise contradicts, the bound with the fewest misses below and others above.
        """
        low = 0.0
        contradictions = least = 0  # compared with those of a bound at 0
        verdicts = self._verdicts(keeps)
        for rate in sorted(verdicts):
            contradictions += -1 if verdicts[rate] else 1
            if contradictions < least:
                low, least = rate, contradictions
        return low, min((rate for rate in verdicts if rate > low), default=math.inf)

    def _verdicts(self, keeps: Keeps) -> dict[float, bool]:
        """By rate; a second try has the last word, but where all confirming windows missed."""
        verdicts = {one.rate: keeps(one) for one in self.probes if not one.is_confirmation}
        for rate in [rate for rate, kept in verdicts.items() if kept]:
            windows = self._confirmations(rate, keeps)
            refuted = len(windows) >= CONFIRMATIONS and not any(map(keeps, windows))
            verdicts[rate] = not refuted
        return verdicts

    def _confirmations(self, rate: float, keeps: Keeps) -> list[Probe]:
        """Without those that the rig spoiled."""
        windows = [one for one in self._at(rate) if one.is_confirmation]
        return [one for one in windows if keeps(one) or not one.rig_bound]

    def _at(self, rate: float) -> list[Probe]:
        return [one for one in self.probes if one.rate == rate]


def _listed(rates: Sequence[float]) -> str:
    shown = [f"{format_rate(rate)}/s" for rate in sorted(rates)]
    return ", ".join(shown if len(shown) <= _MOST_LISTED else [*shown[:_MOST_LISTED], "…"])
