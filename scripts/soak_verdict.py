"""Lines through noisy measurements, and quantiles of the server's own histograms."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import pairwise

BLOCK_S = 10.0  # samples of a second hang together, means of ten seconds hardly do
TEN_MINUTES_S = 600.0
NOISE = 2.0  # standard errors that a slope may be off
_LAG = re.compile(r'^llm_proxy_\w*lag_seconds_bucket\{(?:.*,)?le="([^"]+)".*\} (\S+)$', re.M)


@dataclass(frozen=True)
class Slope:
    """Of a straight line by least squares, in units per ten minutes."""

    value: float
    error: float

    def exceeds(self, limit: float) -> bool:
        """Beyond what its own standard error explains."""
        return self.value - NOISE * self.error > limit

    def is_precise(self, limit: float) -> bool:
        return NOISE * self.error <= limit


def fit(samples: list[tuple[float, float]]) -> Slope:
    """`samples` are (seconds, value), evenly spaced."""
    points = _means(samples)
    count = len(points)
    if count < 4:
        return Slope(0.0, math.inf)
    x_mean = sum(x for x, _ in points) / count
    y_mean = sum(y for _, y in points) / count
    spread = sum((x - x_mean) ** 2 for x, _ in points)
    slope = sum((x - x_mean) * (y - y_mean) for x, y in points) / spread
    rest = [y - y_mean - slope * (x - x_mean) for x, y in points]
    error = math.sqrt(sum(one * one for one in rest) / (count - 2) / spread * _repetition(rest))
    return Slope(slope * TEN_MINUTES_S, error * TEN_MINUTES_S)


def _repetition(rest: list[float]) -> float:
    """By how much neighbours that resemble each other exaggerate the number of measurements: memory
    grows in steps, after which it stays where it is."""
    squares = sum(one * one for one in rest)
    alike = sum(a * b for a, b in pairwise(rest)) / squares if squares else 0.0
    alike = min(max(alike, 0.0), 0.95)
    return (1 + alike) / (1 - alike)


def _means(samples: list[tuple[float, float]]) -> list[tuple[float, float]]:
    blocks: dict[int, list[tuple[float, float]]] = {}
    for at, value in samples:
        blocks.setdefault(int((at - samples[0][0]) / BLOCK_S), []).append((at, value))
    return [
        (sum(at for at, _ in block) / len(block), sum(value for _, value in block) / len(block))
        for block in blocks.values()
    ]


def loop_lags(metrics: str) -> dict[float, float]:
    """How often the workers' loops were late by at most so many seconds; empty: not told."""
    lags: dict[float, float] = {}
    for bound, count in _LAG.findall(metrics):
        lags[float(bound)] = lags.get(float(bound), 0.0) + float(count)
    return lags


def quantile(before: dict[float, float], after: dict[float, float], share: float) -> float | None:
    """The bound below which this share of what came between the two lies."""
    counts = {bound: count - before.get(bound, 0.0) for bound, count in after.items()}
    total = counts.get(math.inf, 0.0)
    for bound, count in sorted(counts.items()):
        if total and count >= share * total:
            return bound
    return None
