"""How much a figure of one run would move if it were run again: a 95 % interval around it.

It is the wider of two: what so many independent requests would leave open, and what the run's
consecutive sections differ by, which also holds what requests have in common (sectioning: the
deviations of the sections from the whole, with Student's t).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from llm_proxy.benchmark.hdr_histogram import HdrHistogram
from llm_proxy.benchmark.precision import rounded
from llm_proxy.benchmark.report import Spread
from llm_proxy.benchmark.samples import TICKS_PER_MS, TICKS_PER_S
from llm_proxy.benchmark.student import NORMAL_95, student_95
from llm_proxy.benchmark.time_series import Slice, merged

_MOST_SECTIONS: Final = 20
_FEWEST_SECTIONS: Final = 4
_FEWEST_BEYOND: Final = 3  # requests that a section must have beyond a percentile, to know it
_PERCENTILES: Final = {"p50": 50.0, "p90": 90.0, "p99": 99.0}


def spread(
    latency: HdrHistogram, slices: Sequence[Slice], *, length: int, duration_s: float
) -> dict[str, Spread]:
    """By metric. `slices` are the whole ones, of `length` ticks."""
    if latency.count < 2 or duration_s <= 0:
        return {}
    sections = _sections(slices)
    histograms = [section.lanes[0].latency for section in sections]
    found = {
        f"latency_ms.{name}": _around_percentile(latency, percentile, histograms)
        for name, percentile in _PERCENTILES.items()
    }
    mean = _around_mean(latency, histograms)
    found["latency_ms.mean"] = mean
    rates = _rates(sections, slices, length)
    found["requests_per_second"] = _around_rate(latency, rates, mean, duration_s=duration_s)
    return found


def _sections(slices: Sequence[Slice]) -> list[Slice]:
    """Equally long ones; what is left over at the beginning belongs to none."""
    count = min(len(slices), _MOST_SECTIONS)
    if count < _FEWEST_SECTIONS:
        return []
    step = len(slices) // count
    return merged(slices[len(slices) - count * step :], step)


def _around_percentile(
    latency: HdrHistogram, percentile: float, sections: Sequence[HdrHistogram]
) -> Spread:
    # Without sections: the ranks that the true percentile is between, 95 times of 100.
    share = percentile / 100
    half_rank = NORMAL_95 * math.sqrt(share * (1 - share) / latency.count) * 100
    low = latency.value_at_percentile(max(percentile - half_rank, 0))
    high = latency.value_at_percentile(min(percentile + half_rank, 100))
    enough = _FEWEST_BEYOND / (1 - share)
    whole = latency.value_at_percentile(percentile)
    half = _half_width(
        whole, sections, lambda one: one.value_at_percentile(percentile), enough=enough
    )
    return _ms(min(low, whole - half), max(high, whole + half))


def _around_mean(latency: HdrHistogram, sections: Sequence[HdrHistogram]) -> Spread:
    mean = latency.mean
    square = sum(one.count * ((one.value_from + one.value_to) / 2 - mean) ** 2 for one in latency)
    independent = NORMAL_95 * math.sqrt(square / (latency.count - 1) / latency.count)
    half = _half_width(mean, sections, lambda one: one.mean, enough=_FEWEST_BEYOND)
    return _ms(mean - max(half, independent), mean + max(half, independent))


def _half_width(
    whole: float,
    sections: Sequence[HdrHistogram],
    figure: Callable[[HdrHistogram], float],
    *,
    enough: float,
) -> float:
    """0 when the sections can't tell."""
    if not sections or min(one.count for one in sections) < enough:
        return 0.0
    return _deviation(whole, [figure(one) for one in sections])


def _deviation(whole: float, figures: Sequence[float]) -> float:
    count = len(figures)
    square = sum((figure - whole) ** 2 for figure in figures)
    return student_95(count - 1) * math.sqrt(square / count / (count - 1))


def _rates(sections: Sequence[Slice], slices: Sequence[Slice], length: int) -> list[float]:
    if not sections:
        return []
    section_s = len(slices) // len(sections) * length / TICKS_PER_S
    return [section.lanes[0].answered / section_s for section in sections]


def _around_rate(
    latency: HdrHistogram, rates: Sequence[float], mean: Spread, *, duration_s: float
) -> Spread:
    """Where there are no sections, as sure as the mean latency that it comes from."""
    rate = latency.count / duration_s
    if rates:
        half = _deviation(rate, rates)
    else:
        half = rate * (mean.high - mean.low) / 2 / max(latency.mean / TICKS_PER_MS, 1e-9)
    return Spread(low=rounded(max(rate - half, 0.0)), high=rounded(rate + half))


def _ms(low: float, high: float) -> Spread:
    return Spread(
        low=rounded(max(low, 0.0) / TICKS_PER_MS), high=rounded(max(high, 0.0) / TICKS_PER_MS)
    )
