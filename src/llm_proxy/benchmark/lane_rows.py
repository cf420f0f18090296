"""The rows of one lane of a frame, picked from its columns without a loop of ours."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import cached_property
from itertools import compress
from operator import add
from typing import Final

from llm_proxy.benchmark.hdr_histogram import Indexed, indexed
from llm_proxy.benchmark.plan import DIRECT
from llm_proxy.benchmark.samples import CANCELLED, OK, OUTCOMES, Samples

_IS_DIRECT: Final = bytes(lane == DIRECT for lane in range(256))
_IS_PROXIED: Final = bytes(lane != DIRECT for lane in range(256))
_IS_OK: Final = bytes(outcome == OK for outcome in range(256))
_IS_ERROR: Final = bytes(outcome not in (OK, CANCELLED) for outcome in range(256))


class LaneRows:
    """`column` is of all rows, `answered` of those that ended well."""

    def __init__(self, samples: Samples, lane: int) -> None:
        self._samples = samples
        table = _IS_DIRECT if lane == DIRECT else _IS_PROXIED
        self._in_lane = samples.lane.tobytes().translate(table)
        self._outcomes = bytes(compress(samples.outcome, self._in_lane))
        self._is_answered = _both(self._in_lane, samples.outcome.tobytes().translate(_IS_OK))
        self._is_all_answered = self._is_answered == self._in_lane
        self._columns: dict[str, list[int]] = {}
        self.is_on_time = not any(samples.late)
        self.latency = self._latency(self._in_lane)
        self.answered_latency = (
            self.latency if self._is_all_answered else self._latency(self._is_answered)
        )

    def __len__(self) -> int:
        return len(self._outcomes)

    def column(self, name: str) -> Sequence[int]:
        if name not in self._columns:
            self._columns[name] = _picked(getattr(self._samples, name), self._in_lane)
        return self._columns[name]

    def answered(self, name: str) -> Sequence[int]:
        if self._is_all_answered:
            return self.column(name)
        return _picked(getattr(self._samples, name), self._is_answered)

    @cached_property
    def indexed_latency(self) -> Indexed:
        """Of those that ended well, for the several histograms that count it."""
        return indexed(self.answered_latency)

    def measured(self, name: str) -> Sequence[int]:
        """Of those that ended well and have a value."""
        values = self.answered(name)
        if values and min(values) < 0:
            return [value for value in values if value >= 0]
        return values

    def answered_until(self, end: int) -> int:
        """How many of those that ended well did so by then."""
        ends = list(map(add, self.answered("due"), self.answered_latency))
        return len(ends) if not ends or max(ends) <= end else sum(one <= end for one in ends)

    def outcomes(self) -> dict[int, int]:
        return {
            outcome: count
            for outcome in range(len(OUTCOMES))
            if (count := self._outcomes.count(outcome))
        }

    def is_answered(self) -> bytes:
        return self._outcomes.translate(_IS_OK)

    def is_error(self) -> bytes:
        return self._outcomes.translate(_IS_ERROR)

    def _latency(self, mask: bytes) -> Sequence[int]:
        service = _picked(self._samples.service, mask)
        if self.is_on_time:
            return service
        return list(map(add, service, _picked(self._samples.late, mask)))


def _picked(column: array[int], mask: bytes) -> list[int]:
    return list(compress(column, mask)) if 0 in mask else column.tolist()


def _both(left: bytes, right: bytes) -> bytes:
    both = int.from_bytes(left, "big") & int.from_bytes(right, "big")
    return both.to_bytes(len(left), "big")
