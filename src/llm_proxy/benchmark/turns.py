"""Whose turn it is: which request comes next, on which lane, as half of which pair."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from llm_proxy.benchmark.plan import PROXIED, Plan
from llm_proxy.benchmark.request_bytes import body_order
from llm_proxy.benchmark.samples import NONE

_LATEST_HANG_UP: Final = 20  # tokens of a stream after which a request is cancelled at the latest


@dataclass(slots=True)
class Turn:
    lane: int
    number: int
    body: int
    pair: int
    cancel_after: int  # tokens; 0: never


class Numbers:
    """Numbers the requests of one process, so that those of all processes differ."""

    def __init__(self, plan: Plan, *, process: int, processes: int) -> None:
        self._order = body_order(plan)
        self._is_in_turn = plan.workload.order == "in turn"
        self._cancel_rate = plan.workload.cancel_rate
        self._random = random.Random(f"{plan.seed}/turns/{process}")
        self._next = process
        self._step = processes
        self.given = 0

    def first(self, *, is_paired: bool, position: int = 0) -> Turn:
        """A new request, before which its connection had `position` others; which lane begins
        the pair is for the caller to say."""
        number = self._next
        self._next += self._step
        pair = self.given if is_paired else NONE
        self.given += 1
        place = position if self._is_in_turn else number
        body = self._order[place % len(self._order)]
        return Turn(PROXIED, number, body, pair, self._cancel_after())

    def coin(self) -> int:
        return self._random.getrandbits(1)

    def _cancel_after(self) -> int:
        if not self._cancel_rate or self._random.random() >= self._cancel_rate:
            return 0
        return 1 + int(self._random.random() * _LATEST_HANG_UP)


class Turns:
    """The turns of one connection, or of all arrivals: with two lanes ABBA or BAAB, by lot, so
    that neither a drift nor the order favours one of them."""

    def __init__(self, numbers: Numbers, *, is_paired: bool) -> None:
        self._numbers = numbers
        self._is_paired = is_paired
        self._step = 0
        self._position = -1
        self._begins = 0
        self._turn: Turn | None = None

    @property
    def is_between_pairs(self) -> bool:
        return not self._step & 1

    def next(self) -> Turn:
        if not self._is_paired:
            return self._first()
        step, self._step = self._step, (self._step + 1) & 3
        if step == 0:
            self._begins = self._numbers.coin()
        if not step & 1 or self._turn is None:
            self._turn = self._first()
        self._turn.lane = self._begins ^ (step in (1, 2))
        return self._turn

    def _first(self) -> Turn:
        self._position += 1
        return self._numbers.first(is_paired=self._is_paired, position=self._position)
