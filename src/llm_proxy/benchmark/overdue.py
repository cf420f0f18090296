"""Answers that go on and on: no pause in them is too long, but the whole is."""

from __future__ import annotations

from time import monotonic_ns
from typing import Final

from llm_proxy.benchmark.loads import Running

_LOOKS: Final = 20  # within the longest time: that is how exact it is
_LEAST_OFTEN_S: Final = 1.0


class Overdue:
    """To be watched by `Timers`: looks at all requests under way from time to time, in place of a
    timer for each of them."""

    def __init__(self, load: Running, max_time_s: float) -> None:
        self._load = load
        self._max_ns = int(max_time_s * 1e9)
        self._every_s = min(max_time_s / _LOOKS, _LEAST_OFTEN_S)
        self._next_s = 0.0

    def check(self, now: float) -> None:
        if now < self._next_s:
            return
        self._next_s = now + self._every_s
        now_ns = monotonic_ns()
        for call in tuple(self._load.active):
            call.time_out(now_ns, self._max_ns)
