"""What the proxy adds: the differences of pairs, and how sure it is that they aren't chance.

Neighbours in time resemble each other, so single pairs are no independent evidence: blocks of
consecutive pairs are. A block is stood for by its median, which a few outliers don't move. The
generator's own two lanes differ by some tenths of a microsecond, by their sockets and heads: what
is within RESOLUTION of nothing is never found, and intervals are that much wider.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from itertools import compress
from random import Random
from statistics import fmean
from typing import Final

from llm_proxy.benchmark.precision import rounded
from llm_proxy.benchmark.report import Added
from llm_proxy.benchmark.samples import TICKS_PER_MS
from llm_proxy.benchmark.student import NORMAL_95, student_95

MOST_PAIRS: Final = 200_000
_MOST_BLOCKS: Final = 200
FEWEST_BLOCKS: Final = 6  # with fewer no sign flip is rare enough: 2 / 2**5 > 0.05
_EXACT_BLOCKS: Final = 13  # all 2**13 flips are fewer than the random ones
_LOWEST_BIT: Final = bytes(byte & 1 for byte in range(256))
RESOLUTION: Final = 10  # ticks: 1 µs
RESAMPLES: Final = 2_000
FLIPS: Final = 10_000


class Differences:
    """Ticks, in the order of time. Beyond MOST_PAIRS a seeded half is kept, and so on."""

    def __init__(self, seed: int) -> None:
        self._random = Random(f"pairs/{seed}")
        self._halvings = 0
        self.values = array("q")

    def extend(self, differences: Iterable[int]) -> None:
        taken = array("q", differences)
        # Not every second one: that would keep one order of ABBA and drop the other.
        for _ in range(self._halvings):
            taken = self._half(taken)
        self.values.extend(taken)
        while len(self.values) > MOST_PAIRS:
            self.values = self._half(self.values)
            self._halvings += 1

    def _half(self, values: array[int]) -> array[int]:
        coins = self._random.randbytes(len(values)).translate(_LOWEST_BIT)
        return array("q", compress(values, coins))


def added(
    differences: Sequence[int], *, seed: int, resamples: int = RESAMPLES, flips: int = FLIPS
) -> Added | None:
    """Of fewer than 36 pairs nothing is ever found: the interval is all that was seen, and 0."""
    if not differences:
        return None
    random = Random(f"added/{seed}")
    # Twice the median is a whole number, so that sums of flipped ones compare exactly.
    doubled = [_doubled_median(block) for block in blocks_of(differences)]
    if len(doubled) < FEWEST_BLOCKS:
        interval = (2.0 * min(0, *differences), 2.0 * max(0, *differences))
        p_value = 1.0
    else:
        low, high = bootstrap_95(doubled, random, resamples)
        interval = (low - 2 * RESOLUTION, high + 2 * RESOLUTION)
        p_value = sign_flip_p(_beyond_resolution(doubled), random, flips)
    return _added(
        sorted(differences),
        typical=fmean(doubled) / 2,
        ci95=(interval[0] / 2, interval[1] / 2),
        p_value=p_value,
        blocks=len(doubled),
    )


def blocks_of(differences: Sequence[int]) -> list[Sequence[int]]:
    """As many as each has members, so that both grow with the evidence; 200 at most."""
    count = min(math.isqrt(len(differences)), _MOST_BLOCKS)
    bounds = [index * len(differences) // count for index in range(count + 1)]
    return [differences[bounds[i] : bounds[i + 1]] for i in range(count)]


def _beyond_resolution(doubled: Sequence[int]) -> list[int]:
    """Moved towards 0; all 0, which is never found, when that is as far as they are."""
    mean = fmean(doubled)
    if abs(mean) <= 2 * RESOLUTION:
        return [0] * len(doubled)
    shift = 2 * RESOLUTION if mean > 0 else -2 * RESOLUTION
    return [value - shift for value in doubled]


def _doubled_median(values: Sequence[int]) -> int:
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]


def bootstrap_95(values: Sequence[int], random: Random, resamples: int) -> tuple[float, float]:
    """Of the mean. Widened for few values, of which the plain bootstrap's is too narrow."""
    size = len(values)
    means = sorted(sum(random.choices(values, k=size)) / size for _ in range(resamples))
    mean = fmean(values)
    widening = student_95(size - 1) / NORMAL_95 * math.sqrt(size / (size - 1))
    low = means[math.floor(0.025 * (resamples - 1))]
    high = means[math.ceil(0.975 * (resamples - 1))]
    return mean - (mean - low) * widening, mean + (high - mean) * widening


def sign_flip_p(values: Sequence[int], random: Random, flips: int) -> float:
    """How often a sum as far from 0 comes about when every sign is left to chance."""
    total = sum(values)
    if len(values) <= _EXACT_BLOCKS:
        sums = _subset_sums(values)
        return sum(abs(total - 2 * part) >= abs(total) for part in sums) / len(sums)
    # One byte of chance decides on eight signs at once.
    tables = [_subset_sums(values[i : i + 8]) for i in range(0, len(values), 8)]
    masks = [len(table) - 1 for table in tables]
    hits = 0
    for _ in range(flips):
        chances = random.randbytes(len(tables))
        flipped = sum(
            table[chance & mask] for table, chance, mask in zip(tables, chances, masks, strict=True)
        )
        hits += abs(total - 2 * flipped) >= abs(total)
    return (hits + 1) / (flips + 1)


def _subset_sums(values: Sequence[int]) -> list[int]:
    sums = [0]
    for value in values:
        sums += [part + value for part in sums]
    return sums


def _added(
    ordered: Sequence[int],
    *,
    typical: float,
    ci95: tuple[float, float],
    p_value: float,
    blocks: int,
) -> Added:
    def ms(ticks: float) -> float:
        return rounded(ticks / TICKS_PER_MS)

    def percentile(value: float) -> float:
        return ms(ordered[max(math.ceil(value * len(ordered) / 100 - 1e-9), 1) - 1])

    return Added(
        count=len(ordered),
        mean=ms(fmean(ordered)),
        min=ms(ordered[0]),
        p50=percentile(50),
        p75=percentile(75),
        p90=percentile(90),
        p95=percentile(95),
        p99=percentile(99),
        p99_9=percentile(99.9),
        max=ms(ordered[-1]),
        typical=ms(typical),
        ci95=(ms(ci95[0]), ms(ci95[1])),
        p_value=rounded(p_value),
        blocks=blocks,
    )
