"""What reports say of a histogram: percentiles, bins and the cumulative curve."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from llm_proxy.benchmark.hdr_histogram import HdrHistogram, bucket_end, bucket_start
from llm_proxy.benchmark.precision import round_to, rounded
from llm_proxy.benchmark.report import Distribution, Histogram
from llm_proxy.benchmark.samples import TICKS_PER_MS

_BINS: Final = 40
_EDGE_DIGITS: Final = 5  # so that neighbouring edges differ
_CDF_STEPS: Final = 99  # on each axis: a point whenever one of them has moved by a step
_SHARE_DECIMALS: Final = 6


def distribution(
    histogram: HdrHistogram, *, ticks_per_unit: int = TICKS_PER_MS
) -> Distribution | None:
    if not histogram.count:
        return None

    def percentile(value: float) -> float:
        return rounded(histogram.value_at_percentile(value) / ticks_per_unit)

    return Distribution(
        count=histogram.count,
        mean=rounded(histogram.mean / ticks_per_unit),
        min=rounded(histogram.min / ticks_per_unit),
        p50=percentile(50),
        p75=percentile(75),
        p90=percentile(90),
        p95=percentile(95),
        p99=percentile(99),
        p99_9=percentile(99.9),
        max=rounded(histogram.max / ticks_per_unit),
    )


def bins(histogram: HdrHistogram) -> Histogram | None:
    """Some 40 from the least to the most. Their edges are edges of the histogram's own buckets,
    so that every count is true: where those are wider, there are fewer bins."""
    if not histogram.count:
        return None
    edges = list(_edges(histogram.min, histogram.max))
    counts = [0] * (len(edges) - 1)
    current = 0
    for bucket in histogram:
        while current < len(counts) - 1 and bucket.value_from >= edges[current + 1]:
            current += 1
        counts[current] += bucket.count
    return Histogram(edges_ms=tuple(_edge_ms(edge) for edge in edges), counts=tuple(counts))


def _edges(least: int, most: int) -> Iterator[int]:
    first = last = max(bucket_start(least), 1)  # a logarithmic axis has no 0
    end = bucket_end(max(most, first))
    yield first
    for step in range(1, _BINS):
        edge = bucket_start(round(first * (end / first) ** (step / _BINS)))
        if last < edge < end:
            last = edge
            yield edge
    yield end


def _edge_ms(ticks: int) -> float:
    return round_to(ticks / TICKS_PER_MS, _EDGE_DIGITS)


def cdf(histogram: HdrHistogram) -> tuple[tuple[float, float], ...]:
    """Points on the curve, 200 at most: dense where it is steep, and where it is long."""
    if not histogram.count:
        return ()
    end = _log(histogram.max)
    log_step = (end - _log(histogram.min)) / _CDF_STEPS
    share_step = 1 / _CDF_STEPS
    points: list[tuple[float, float]] = []
    so_far, at_log, at_share = 0, -math.inf, 0.0
    for bucket in histogram:
        so_far += bucket.count
        value = min(bucket.value_to, histogram.max)
        log, share = _log(value), so_far / histogram.count
        is_last = so_far == histogram.count
        if log - at_log >= log_step or share - at_share >= share_step or is_last:
            points.append((rounded(value / TICKS_PER_MS), round(share, _SHARE_DECIMALS)))
            at_log, at_share = log, share
    return tuple(points)


def _log(ticks: int) -> float:
    return math.log(max(ticks, 1))
