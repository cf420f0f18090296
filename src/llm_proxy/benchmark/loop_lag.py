"""How late the generator's own loop is: what it was too busy to notice counts against the rig."""

from __future__ import annotations

from array import array
from time import monotonic_ns
from typing import Final

from llm_proxy.benchmark.pacing import new_alarm

_EVERY_NS: Final = 10_000_000
_MOST: Final = 360_000  # an hour's ticks; later ones aren't kept


class LoopLag:
    """Needs a running loop; `close` ends it."""

    def __init__(self) -> None:
        self._lags = array("q")
        self._alarm = new_alarm(self._tick)
        self._due = monotonic_ns() + _EVERY_NS
        self._alarm.set(self._due)

    def _tick(self) -> None:
        now = monotonic_ns()
        if len(self._lags) < _MOST:
            self._lags.append(max(0, now - self._due))
        self._due = now + _EVERY_NS
        self._alarm.set(self._due)

    @property
    def count(self) -> int:
        return len(self._lags)

    def close(self) -> None:
        self._alarm.close()

    def percentile_ms(self, share: float) -> float:
        return percentile(self._lags, share) / 1e6


def percentile(values: array[int], share: float) -> int:
    """The value that `share` (0 to 1) of them don't exceed; 0 of none."""
    if not values:
        return 0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
