"""Brings the two halves of pairs together, which may come in different frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from llm_proxy.benchmark.plan import DIRECT, PROXIED
from llm_proxy.benchmark.samples import NONE

MOST_WAITING: Final = 50_000  # halves of one process and lane; the partner of the oldest failed

Half = tuple[int, ...]  # the times that are compared


class PairJoin:
    """Of one process, in which a pair's number is its own."""

    def __init__(self) -> None:
        self._waiting: tuple[dict[int, Half], dict[int, Half]] = ({}, {})

    def add(self, lane: int, halves: Iterable[tuple[int, Half]]) -> None:
        waiting = self._waiting[lane]
        waiting.update(halves)
        waiting.pop(NONE, None)
        for oldest in tuple(_first(waiting, len(waiting) - MOST_WAITING)):
            del waiting[oldest]

    def joined(self) -> list[tuple[Half, Half]]:
        """The pairs complete since the last call, proxied first, in the order of their coming."""
        proxied, direct = self._waiting[PROXIED], self._waiting[DIRECT]
        numbers = [number for number in proxied if number in direct]
        return [(proxied.pop(number), direct.pop(number)) for number in numbers]


def _first(waiting: dict[int, Half], count: int) -> Iterator[int]:
    return (number for number, _ in zip(waiting, range(count), strict=False))
