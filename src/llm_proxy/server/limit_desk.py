"""Where one worker's questions about limits are answered, in their order, by the authority."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from llm_proxy.gcra import SECOND
from llm_proxy.server.channel import (
    AskLimits,
    GrantedLimits,
    LimitsAnswer,
    LimitsState,
    LimitsWanted,
    RateGranted,
    SlotsGranted,
)
from llm_proxy.server.host_authority import HostAuthority
from llm_proxy.server.limit_authority import Authority, LimitsUnavailable, RatePermits

logger = logging.getLogger(__name__)

MAX_GIVEN: Final = 10_000  # permits of rates on their way back; what is more is lost, not held
_Taken = tuple[list[RatePermits], list[int]]
_NOTHING: Final = GrantedLimits(rates=(), slots=(), is_unavailable=True)


class LimitDesk:
    def __init__(
        self, authority: Authority, *, holder: str, answer: Callable[[LimitsAnswer], None]
    ) -> None:
        """`holder` is the worker's name, which no other has or had."""
        self._authority = authority
        self._holder = holder
        self._answer = answer
        self._question: AskLimits | None = None
        self._given_slots: Counter[str] = Counter()
        self._given_rates: list[tuple[AskLimits, int]] = []
        self._has_news = asyncio.Event()
        self._serving = asyncio.create_task(self._serve(), name=f"limits of {holder}")

    def put(self, message: AskLimits) -> None:
        for key, count in message.given_slots:
            self._given_slots[key] += count
        if message.given_rates and len(self._given_rates) < MAX_GIVEN:
            self._given_rates.append((message, time.monotonic_ns()))
        if message.wanted:
            self._question = message
        self._has_news.set()

    def adopt(self, state: LimitsState) -> None:
        if isinstance(self._authority, HostAuthority):  # hosts never count by themselves in a fleet
            self._authority.adopt(state, self._holder)

    async def close(self) -> None:
        """The worker has ended."""
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)
        await self._authority.forget(self._holder)

    async def _serve(self) -> None:
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            try:
                await self._take_back()
            except LimitsUnavailable:
                pass  # its own log says so
            except Exception:  # whatever it is, the worker goes on
                logger.exception("limits were not given back")
            question, self._question = self._question, None
            if question is not None:
                granted = await _together(*map(self._grant_safely, question.wanted))
                self._answer(LimitsAnswer(question.sequence, tuple(granted)))

    async def _take_back(self) -> None:
        slots, self._given_slots = self._given_slots, Counter()
        rates, self._given_rates = self._given_rates, []
        for key, count in slots.items():
            await self._authority.give_slots(key, count, self._holder)
        for message, came_at in rates:
            waited_s = (time.monotonic_ns() - came_at) / SECOND
            for key, rate, permits, age_s in message.given_rates:
                await self._authority.give_rate(key, rate, permits, age_s + waited_s)

    async def _grant_safely(self, wanted: LimitsWanted) -> GrantedLimits:
        try:
            return await self._grant(wanted)
        except LimitsUnavailable:
            return _NOTHING
        except Exception:  # whatever it is, the worker goes on
            logger.exception("limits can't be asked")
            return _NOTHING

    async def _grant(self, wanted: LimitsWanted) -> GrantedLimits:
        """All of it, or nothing: then what was taken is given back."""
        started_at = time.monotonic_ns()
        rates, slots = await self._take(wanted, started_at)
        if all(one.permits for one in rates) and all(slots):
            return GrantedLimits(
                rates=tuple(
                    RateGranted(asked.key, one.permits, one.valid_until, 0.0)
                    for asked, one in zip(wanted.rates, rates, strict=True)
                ),
                slots=tuple(
                    SlotsGranted(asked.key, count, False)
                    for asked, count in zip(wanted.slots, slots, strict=True)
                ),
                is_unavailable=False,
            )
        await self._undo(wanted, (rates, slots), started_at)
        return GrantedLimits(
            rates=tuple(
                RateGranted(asked.key, 0, 0, 0.0 if one.permits else max(one.wait_s, 1e-6))
                for asked, one in zip(wanted.rates, rates, strict=True)
            ),
            slots=tuple(
                SlotsGranted(asked.key, 0, count == 0)
                for asked, count in zip(wanted.slots, slots, strict=True)
            ),
            is_unavailable=False,
        )

    async def _take(self, wanted: LimitsWanted, started_at: int) -> _Taken:
        """All at once, so that an authority that is far away needs one journey."""
        take_rate, take_slots = self._authority.take_rate, self._authority.take_slots
        results: list[Any] = await _together(
            *(take_rate(one.key, one.rate, one.permits) for one in wanted.rates),
            *(take_slots(one.key, one.most, one.count, self._holder) for one in wanted.slots),
        )
        failures = [one for one in results if isinstance(one, BaseException)]
        count = len(wanted.rates)
        rates = [RatePermits(0) if one in failures else one for one in results[:count]]
        slots = [0 if one in failures else one for one in results[count:]]
        if failures:
            await self._undo(wanted, (rates, slots), started_at)
            raise failures[0]
        return rates, slots

    async def _undo(self, wanted: LimitsWanted, taken: _Taken, started_at: int) -> None:
        rates, slots = taken
        age_s = (time.monotonic_ns() - started_at) / SECOND
        give_rate, give_slots = self._authority.give_rate, self._authority.give_slots
        with suppress(LimitsUnavailable):
            for asked, permits in zip(wanted.rates, rates, strict=True):
                if permits.permits:
                    await give_rate(asked.key, asked.rate, permits.permits, age_s)
            for asked_slots, count in zip(wanted.slots, slots, strict=True):
                if count:
                    await give_slots(asked_slots.key, count, self._holder)


async def _together(*calls: Coroutine[Any, Any, Any]) -> list[Any]:
    """What each gave, or the exception that it raised; a single one needs no task."""
    if len(calls) > 1:
        return await asyncio.gather(*calls, return_exceptions=True)
    try:
        return [await call for call in calls]
    except Exception as exc:
        return [exc]
