"""A worker's side of the authority: what it asks, in one message for each turn of the loop.

One question is under way at a time; what is wanted meanwhile is asked when the answer is here, and
much of it needn't be asked then any more. What is given back never waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from llm_proxy.gcra import SECOND
from llm_proxy.limits import RateLimit
from llm_proxy.server.channel import AskLimits, GrantedLimits, LimitsAnswer, LimitsWanted

PATIENCE: Final = 2 * SECOND  # then the authority counts as lost


class RemoteLimits:
    __slots__ = (
        "_asked_at",
        "_clock",
        "_given_rates",
        "_given_slots",
        "_has_ended",
        "_is_flushing",
        "_loop",
        "_send",
        "_sequence",
        "_wanted",
        "asked",
        "is_lost",
        "on_answer",
        "on_loss",
        "workers",
    )

    def __init__(
        self,
        send: Callable[[AskLimits], None],
        *,
        workers: int,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`workers` share the authority with this one, itself included."""
        self._send = send
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._sequence = 0
        self._wanted: list[LimitsWanted] = []
        self._given_rates: list[tuple[str, RateLimit, int, float]] = []
        self._given_slots: dict[str, int] = {}
        self._is_flushing = False
        self._asked_at = 0  # 0: nothing is under way
        self._has_ended = False
        self.asked = 0  # questions, in all
        self.is_lost = False
        self.on_answer: Callable[[Sequence[GrantedLimits]], None] = lambda granted: None
        self.on_loss: Callable[[], None] = lambda: None
        self.workers = workers

    @property
    def is_busy(self) -> bool:
        """A question is under way: the next can't be asked before its answer."""
        return self._asked_at > 0

    def ask(self, wanted: LimitsWanted) -> None:
        """All of it, or nothing. Not while it is busy."""
        self._wanted.append(wanted)
        self._flush_soon()

    def give_slots(self, key: str, count: int) -> None:
        self._given_slots[key] = self._given_slots.get(key, 0) + count
        self._flush_soon()

    def give_rate(self, key: str, rate: RateLimit, permits: int, age: int) -> None:
        """`age` is in nanoseconds; what would be drained by now is not worth a message."""
        if permits * rate.interval_s * SECOND > age:
            self._given_rates.append((key, rate, permits, age / SECOND))
            self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        wanted: list[LimitsWanted] = []
        if self._wanted and not self.is_busy:
            wanted, self._wanted = self._wanted, []
            self._asked_at = self._clock()
            self._sequence += 1
            self.asked += len(wanted)
        slots, self._given_slots = self._given_slots, {}
        rates, self._given_rates = self._given_rates, []
        if (wanted or slots or rates) and not self._has_ended:
            message = AskLimits(
                self._sequence if wanted else 0,
                wanted=tuple(wanted),
                given_rates=tuple(rates),
                given_slots=tuple(slots.items()),
            )
            self._send(message)

    def answered(self, message: LimitsAnswer) -> None:
        if message.sequence == self._sequence:
            self._asked_at = 0
            self.is_lost = self._has_ended
        self.on_answer(message.granted)

    def check(self) -> None:
        """On every tick."""
        if self.is_busy and self._clock() - self._asked_at > PATIENCE and not self.is_lost:
            self._lose()

    def end(self) -> None:
        """There will be no more answers: the supervisor is gone."""
        self._has_ended = True
        self._lose()

    def _lose(self) -> None:
        self.is_lost = True
        self.on_loss()
