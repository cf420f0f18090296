"""What a worker refused since it last said so, counted for the audit log in bounded memory."""

from __future__ import annotations

from collections import Counter
from typing import Final

MOST_KINDS: Final = 1000  # held apart; of the others only the code is kept
MOST_TOLD: Final = 100  # at once; the others are summed by their code

# Code, token id, project id and client address; empty where it isn't known.
RefusalKey = tuple[str, str, str, str]


class Refusals:
    __slots__ = ("_counts", "_rest")

    def __init__(self) -> None:
        self._counts: dict[RefusalKey, int] = {}
        self._rest: Counter[str] = Counter()

    def add(self, key: RefusalKey) -> None:
        counts = self._counts
        if key in counts:
            counts[key] += 1
        elif len(counts) < MOST_KINDS:
            counts[key] = 1
        else:
            self._rest[key[0]] += 1

    def take(self) -> tuple[list[tuple[RefusalKey, int]], dict[str, int]]:
        """The most frequent, and how many others there were by code; from here on from zero."""
        if not self._counts:
            return [], {}
        counts, self._counts = Counter(self._counts), {}
        rest, self._rest = self._rest, Counter()
        told = counts.most_common(MOST_TOLD)
        for key, _ in told:
            del counts[key]
        for key, count in counts.items():
            rest[key[0]] += count
        return told, dict(rest)
