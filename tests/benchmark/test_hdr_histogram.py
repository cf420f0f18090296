from __future__ import annotations

import base64
from collections.abc import Sequence
from random import Random

import pytest
from hdrh.histogram import HdrHistogram as Reference
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.benchmark.hdr_histogram import HIGHEST, HdrHistogram, indexed

PERCENTILES = (0.1, 10, 50, 75, 90, 95, 99, 99.9, 100)
VALUES = st.lists(st.one_of(st.integers(0, 5000), st.integers(0, HIGHEST)), min_size=1, max_size=50)


def histogram_of(values: Sequence[int]) -> HdrHistogram:
    histogram = HdrHistogram()
    histogram.record_all(values)
    return histogram


def reference_of(values: Sequence[int], *, times: int = 1) -> Reference:
    reference = Reference(1, HIGHEST, 3)
    for value in values:
        reference.record_value(value, times)
    return reference


def read_by_reference(histogram: HdrHistogram) -> Reference:
    return Reference.decode(base64.b64encode(histogram.encode_v2()))


def test_nothing_recorded_is_nothing() -> None:
    histogram = HdrHistogram()
    assert (histogram.count, histogram.mean, histogram.max, list(histogram)) == (0, 0.0, 0, [])
    assert histogram.value_at_percentile(50) == 0


def test_small_values_are_exact() -> None:
    histogram = histogram_of(range(1, 1001))
    assert [histogram.value_at_percentile(p) for p in (0, 50, 99, 99.9, 100)] == [
        *(1, 500, 990, 999, 1000)
    ]
    assert (histogram.min, histogram.max, histogram.mean) == (1, 1000, 500.5)


def test_the_most_is_exact_though_its_bucket_is_wider() -> None:
    assert histogram_of([1_000_001]).value_at_percentile(99) == 1_000_001


def test_values_over_an_hour_count_as_that() -> None:
    histogram = HdrHistogram()
    histogram.record(HIGHEST + 1, 3)
    assert (histogram.max, histogram.count) == (HIGHEST, 3)
    histogram.record_all([5, HIGHEST + 1, HIGHEST])
    assert (histogram.min, histogram.count) == (5, 6)


@given(VALUES)
def test_values_that_were_indexed_once_are_recorded_in_any_number_of_histograms(
    values: list[int],
) -> None:
    many = indexed(values)
    histograms = [HdrHistogram(), HdrHistogram()]
    for histogram in histograms:
        histogram.record_all(many)
    one_by_one = HdrHistogram()
    for value in values:
        one_by_one.record(value)
    for histogram in histograms:
        assert list(histogram) == list(one_by_one)
        assert (histogram.mean, histogram.max) == (one_by_one.mean, one_by_one.max)


def test_negative_values_count_as_nothing() -> None:
    histogram = histogram_of([-5, 10])
    assert (histogram.min, histogram.count, histogram.mean) == (0, 2, 5.0)


def test_an_empty_histogram_adds_nothing() -> None:
    histogram = histogram_of([7])
    histogram.add(HdrHistogram())
    assert (histogram.min, histogram.count) == (7, 1)


@given(VALUES)
def test_buckets_hold_their_values_to_a_thousandth(values: list[int]) -> None:
    histogram = histogram_of(values)
    buckets = list(histogram)
    assert sum(bucket.count for bucket in buckets) == len(values)
    for value in values:
        bucket = next(bucket for bucket in buckets if bucket.value_to >= value)
        assert bucket.value_from <= value
        assert bucket.value_to - bucket.value_from <= value / 1000


@given(VALUES)
def test_one_by_one_and_all_at_once_are_the_same(values: list[int]) -> None:
    single = HdrHistogram()
    for value in values:
        single.record(value)
    together = histogram_of(values)
    assert list(single) == list(together)
    assert (single.min, single.max, single.mean) == (together.min, together.max, together.mean)


@given(VALUES, VALUES)
def test_adding_is_recording_both(left: list[int], right: list[int]) -> None:
    added = histogram_of(left)
    added.add(histogram_of(right))
    both = histogram_of(left + right)
    assert list(added) == list(both)
    assert (added.min, added.max, added.mean) == (both.min, both.max, both.mean)


@settings(max_examples=30)
@given(VALUES)
def test_percentiles_are_those_of_the_reference(values: list[int]) -> None:
    # A thousand of each: then both take the same rank, however they round it.
    histogram = HdrHistogram()
    for value in values:
        histogram.record(value, 1000)
    reference = reference_of(values, times=1000)
    for percentile, value in reference.get_percentile_to_value_dict(list(PERCENTILES)).items():
        assert histogram.value_at_percentile(percentile) == min(value, max(values))


def test_the_reference_agrees_on_a_plausible_run() -> None:
    random = Random(5)
    values = [int(random.lognormvariate(0, 0.7) * 4000) for _ in range(10_000)]
    histogram, reference = histogram_of(values), reference_of(values)
    for percentile in PERCENTILES:
        expected = min(reference.get_value_at_percentile(percentile), max(values))
        assert histogram.value_at_percentile(percentile) == expected
    assert histogram.mean == pytest.approx(reference.get_mean_value(), rel=1e-3)


@given(VALUES)
def test_the_reference_reads_what_was_encoded(values: list[int]) -> None:
    histogram = histogram_of(values)
    read = read_by_reference(histogram)
    assert read.get_total_count() == len(values)
    for bucket in histogram:
        assert read.get_count_at_value(bucket.value_from) == bucket.count


def test_large_counts_are_encoded() -> None:
    histogram = HdrHistogram()
    histogram.record(100, 2**40)
    histogram.record(200, 2**61)
    read = read_by_reference(histogram)
    assert (read.get_count_at_value(100), read.get_count_at_value(200)) == (2**40, 2**61)
