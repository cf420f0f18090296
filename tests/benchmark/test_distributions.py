from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.benchmark.distributions import bins, cdf, distribution
from llm_proxy.benchmark.hdr_histogram import HdrHistogram
from llm_proxy.benchmark.samples import TICKS_PER_MS

TICKS = st.lists(st.one_of(st.integers(0, 3000), st.integers(0, 10**9)), min_size=1, max_size=60)


def histogram_of(values: list[int]) -> HdrHistogram:
    histogram = HdrHistogram()
    histogram.record_all(values)
    return histogram


def test_nothing_has_no_distribution() -> None:
    assert distribution(HdrHistogram()) is None
    assert bins(HdrHistogram()) is None
    assert cdf(HdrHistogram()) == ()


def test_percentiles_are_milliseconds_of_four_digits() -> None:
    found = distribution(histogram_of([ms * TICKS_PER_MS for ms in range(1, 1001)]))
    assert found is not None
    assert (found.count, found.min, found.max, found.mean) == (1000, 1.0, 1000.0, 500.5)
    assert found.p50 == pytest.approx(500, rel=0.001)
    assert found.p99 == pytest.approx(990, rel=0.001)
    assert found.p99_9 == pytest.approx(999, rel=0.001)


def test_another_unit_may_be_asked_for() -> None:
    found = distribution(histogram_of([2500]), ticks_per_unit=1000)
    assert found is not None
    assert found.p50 == 2.5


@given(TICKS)
def test_percentiles_ascend(values: list[int]) -> None:
    found = distribution(histogram_of(values))
    assert found is not None
    figures = [found.min, found.p50, found.p75, found.p90, found.p95, found.p99, found.p99_9]
    assert sorted(figures) == figures
    assert figures[-1] <= found.max


@given(TICKS)
def test_every_count_is_in_its_bin(values: list[int]) -> None:
    found = bins(histogram_of(values))
    assert found is not None
    assert len(found.edges_ms) == len(found.counts) + 1 <= 41
    assert all(low < high for low, high in pairwise(found.edges_ms))
    assert found.edges_ms[0] > 0
    for number, (low, high) in enumerate(pairwise(found.edges_ms)):
        # Edges are rounded to five digits.
        least = sum(low * 1.0001 <= value / TICKS_PER_MS < high * 0.9999 for value in values)
        most = sum(low * 0.9999 <= value / TICKS_PER_MS < high * 1.0001 for value in values)
        zeros = values.count(0) if number == 0 else 0
        assert least <= found.counts[number] <= most + zeros
    assert sum(found.counts) == len(values)


def test_a_wide_range_has_forty_bins_of_equal_width_on_a_log_axis() -> None:
    found = bins(histogram_of([TICKS_PER_MS, 1000 * TICKS_PER_MS]))
    assert found is not None
    assert len(found.counts) == 40
    for low, high in pairwise(found.edges_ms):
        assert high / low == pytest.approx(1000 ** (1 / 40), rel=0.005)


def test_values_in_one_bucket_are_one_bin() -> None:
    found = bins(histogram_of([5, 5, 5]))
    assert found is not None
    assert found.counts == (3,)


@given(TICKS)
def test_the_curve_rises_to_all_requests_within_200_points(values: list[int]) -> None:
    points = cdf(histogram_of(values))
    assert 1 <= len(points) <= 200
    assert list(points) == sorted(points)
    assert points[-1][1] == 1.0
    for ms, share in points:
        # The histogram and the rounding may each hide a thousandth.
        most = sum(value / TICKS_PER_MS <= ms * 1.002 for value in values) / len(values)
        least = sum(value / TICKS_PER_MS <= ms * 0.998 for value in values) / len(values)
        assert least - 1e-6 <= share <= most + 1e-6


def test_a_long_run_still_has_200_points_at_most() -> None:
    points = cdf(histogram_of(list(range(1000, 3_000_000, 300))))
    assert 100 <= len(points) <= 200
