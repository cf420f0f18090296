"""Where the memory of a target goes in the course of a run: its steady size, and its growth."""

from __future__ import annotations

from itertools import combinations
from statistics import median
from typing import Final

LEAST_S: Final = 20.0  # of a run: of a shorter one the start is all there is
_LEAST_FOR_GROWTH_S: Final = 60.0  # a minute's growth isn't foretold from a few seconds'
_SLACK_S: Final = 1.5  # the last value is seen up to so long before the end
_FEWEST: Final = 8
_MOST: Final = 256  # values kept: of longer runs every second one, then every fourth …
_MIB: Final = 1024 * 1024


class MemoryTrend:
    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []  # (time, bytes)
        self._every = 1
        self._passed_over = 0

    def note(self, at_s: float, memory: int) -> None:
        """`at_s` is of any clock that only goes forward."""
        self._passed_over += 1
        if self._passed_over < self._every:
            return
        self._passed_over = 0
        self._seen.append((at_s, memory))
        if len(self._seen) > _MOST:
            self._seen = self._seen[::2]
            self._every *= 2

    def steady_mib(self) -> float | None:
        """The median of the second half."""
        late = self._after(0.5, least_s=LEAST_S)
        return median(memory for _, memory in late) / _MIB if late else None

    def growth_mib_per_min(self) -> float | None:
        """The median of the slopes between any two (Theil-Sen): a few odd values change nothing.

        The first quarter is left out: what a target takes once isn't growth.
        """
        late = self._after(0.25, least_s=_LEAST_FOR_GROWTH_S)
        slopes = [
            (later - earlier) / (end - start)
            for (start, earlier), (end, later) in combinations(late, 2)
            if end > start
        ]
        return median(slopes) * 60 / _MIB if slopes else None

    def _after(self, share: float, *, least_s: float) -> list[tuple[float, int]]:
        """What was seen in the rest of the run; nothing of a short one."""
        if len(self._seen) < _FEWEST:
            return []
        start, end = self._seen[0][0], self._seen[-1][0]
        if end - start < least_s - _SLACK_S:
            return []
        return [seen for seen in self._seen if seen[0] >= start + share * (end - start)]
