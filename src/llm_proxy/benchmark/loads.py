"""The two ways to put load on a target: by connections, or by a timetable."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic_ns
from typing import Final, Protocol

from llm_proxy.benchmark.call import Call, CallBook, Lane
from llm_proxy.benchmark.pacing import Alarm, new_alarm
from llm_proxy.benchmark.plan import Closed, Open, Plan, Replay
from llm_proxy.benchmark.samples import CONNECT
from llm_proxy.benchmark.schedule import due_between, due_times
from llm_proxy.benchmark.turns import Numbers, Turns

_AFTER_REFUSAL_S: Final = 0.1  # a connection that can't be had is asked for again so much later
_MOST_COUNTED: Final = 20_000  # arrivals that were not sent
_MOST_LATE: Final = 1_000_000  # sends whose lateness is kept
_MOST_AT_ONCE: Final = 500  # sends, then whatever else is ready has its turn


class Running(Protocol):
    """A load under way; `ended` of its maker is called once nothing is left to do."""

    active: set[Call]
    unsent: int
    blocked: int
    sent: int  # of an open load
    late: array[int]

    def start(self, at_ns: int) -> None: ...
    def stop(self) -> None:
        """Sends nothing new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What one process has to do of a plan."""

    plan: Plan
    lanes: Sequence[Lane]
    book: CallBook
    ended: Callable[[], None]
    process: int
    processes: int

    def numbers(self) -> Numbers:
        return Numbers(self.plan, process=self.process, processes=self.processes)

    def share(self, total: int) -> int:
        return share(total, self.process, self.processes)


class ClosedLoad:
    """Every connection sends its next request when it has the answer to the last one."""

    def __init__(self, load: Closed, task: Task) -> None:
        self._lanes = task.lanes
        self._is_paired = task.plan.is_paired
        self._numbers = task.numbers()
        self._concurrency = task.share(load.concurrency)
        self._left = None if load.requests is None else task.share(load.requests)
        self._duration_s = load.duration_s
        self._book = task.book
        self._ended = task.ended
        self._ends_ns = 0
        self._is_stopped = False
        self.active: set[Call] = set()
        self._waiting: set[asyncio.TimerHandle] = set()
        self.unsent = self.blocked = self.sent = 0
        self.late = array("q")

    def start(self, at_ns: int) -> None:
        self._ends_ns = at_ns + int((self._duration_s or 1e9) * 1e9)
        seats = [
            Seat(self, self._book, is_paired=self._is_paired) for _ in range(self._concurrency)
        ]
        for seat in seats:
            self.proceed(seat)
        self._end_if_idle()

    def stop(self) -> None:
        self._is_stopped = True
        for handle in self._waiting:
            handle.cancel()
        self._waiting.clear()
        self._end_if_idle()

    def proceed(self, seat: Seat) -> None:
        """Begins the next request of a seat, unless the load is over for it."""
        if self._is_stopped or (seat.turns.is_between_pairs and not self._may_begin()):
            self.active.discard(seat.call)
            self._end_if_idle()
            return
        turn = seat.turns.next()
        self.active.add(seat.call)
        seat.call.begin(
            self._lanes[turn.lane],
            number=turn.number,
            body=turn.body,
            pair=turn.pair,
            cancel_after=turn.cancel_after,
        )

    def wait(self, seat: Seat) -> None:
        self.active.discard(seat.call)
        loop = asyncio.get_running_loop()
        if self._is_stopped:
            self._end_if_idle()
            return

        def resume() -> None:
            self._waiting.discard(handle)
            self.proceed(seat)

        handle = loop.call_later(_AFTER_REFUSAL_S, resume)
        self._waiting.add(handle)

    def _may_begin(self) -> bool:
        if monotonic_ns() >= self._ends_ns:
            return False
        if self._left is None:
            return True
        self._left -= 1
        return self._left >= 0

    def _end_if_idle(self) -> None:
        if not self.active and not self._waiting:
            self._ended()


class Seat:
    """One connection's worth of a closed load."""

    __slots__ = ("_load", "call", "turns")

    def __init__(self, load: ClosedLoad, book: CallBook, *, is_paired: bool) -> None:
        self._load = load
        self.turns = Turns(load._numbers, is_paired=is_paired)
        self.call = Call(book, self._answered)

    def _answered(self, call: Call) -> None:
        if call.outcome == CONNECT:
            self._load.wait(self)
        else:
            self._load.proceed(self)


class OpenLoad:
    """Requests are sent when they are due, whatever became of those before."""

    def __init__(self, load: Open | Replay, task: Task) -> None:
        self._load = load
        self._task = task
        self._lanes = task.lanes
        self._book = task.book
        self._ended = task.ended
        self._turns = Turns(task.numbers(), is_paired=task.plan.is_paired)
        self._most = max(1, task.share(load.max_in_flight))
        self._due_times: Iterator[float] = due_times(
            load,
            seed=task.plan.seed,
            process=task.process,
            processes=task.processes,
            lanes=len(task.lanes),
        )
        self._idle: list[Call] = []
        self._alarm: Alarm = new_alarm(self._send_due)
        self._started_ns = 0
        self._next_ns: int | None = None
        self._is_blocked = False
        self.active: set[Call] = set()
        self.unsent = self.blocked = self.sent = 0
        self.late = array("q")

    def start(self, at_ns: int) -> None:
        self._started_ns = at_ns
        self._advance()
        self._send_due()

    def stop(self) -> None:
        """What was due and not sent, because all slots were taken, is counted."""
        self.unsent += self._left_over(monotonic_ns())
        self._next_ns = None
        self._alarm.close()
        self._end_if_idle()

    def _left_over(self, now: int) -> int:
        """Each by itself, or at rates that nobody can send on average: that takes no time."""
        for count in range(_MOST_COUNTED):
            if self._next_ns is None or self._next_ns > now:
                return count
            self._advance()
        return _MOST_COUNTED + self._due_until(now)

    def _due_until(self, now: int) -> int:
        if self._next_ns is None:
            return 0
        begin_s, end_s = ((at - self._started_ns) / 1e9 for at in (self._next_ns, now))
        processes, lanes = self._task.processes, len(self._lanes)
        return due_between(self._load, begin_s, end_s, processes=processes, lanes=lanes)

    def _advance(self) -> None:
        due = next(self._due_times, None)
        self._next_ns = None if due is None else self._started_ns + int(due * 1e9)

    def _send_due(self) -> None:
        sent = 0
        while self._next_ns is not None:
            now = monotonic_ns()
            if sent == _MOST_AT_ONCE:
                self._alarm.set(now)
                return
            if self._next_ns > now:
                self._is_blocked = False
                self._alarm.set(self._next_ns)
                return
            if len(self.active) >= self._most:
                self._is_blocked = True
                return
            self._send(self._next_ns, now)
            self._advance()
            sent += 1
        self._end_if_idle()

    def _send(self, due: int, now: int) -> None:
        if self._is_blocked:
            self.blocked += 1
        elif len(self.late) < _MOST_LATE:
            self.late.append(now - due)
        self.sent += 1
        call = self._idle.pop() if self._idle else Call(self._book, self._answered)
        turn = self._turns.next()
        self.active.add(call)
        call.begin(
            self._lanes[turn.lane],
            number=turn.number,
            body=turn.body,
            due=due,
            pair=turn.pair,
            cancel_after=turn.cancel_after,
        )

    def _answered(self, call: Call) -> None:
        self.active.discard(call)
        self._idle.append(call)
        if self._is_blocked:
            self._send_due()
        else:
            self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._next_ns is None and not self.active:
            self._alarm.close()
            self._ended()


def share(total: int, process: int, processes: int) -> int:
    """What one of several processes gets of a number; all together get it exactly."""
    return total // processes + (process < total % processes)
