from __future__ import annotations

from random import Random

import pytest

from llm_proxy.benchmark.lane_rows import LaneRows
from llm_proxy.benchmark.plan import DIRECT, PROXIED
from llm_proxy.benchmark.samples import CANCELLED, CUT
from llm_proxy.benchmark.time_series import MOST_SLICES, TimeSeries, latency_of
from tests.benchmark.framing import MS, SECOND, Row, ended, samples_of


def series_of(*rows: Row, lanes: int = 1) -> TimeSeries:
    series = TimeSeries(lanes=lanes)
    samples = samples_of(rows)
    for lane in range(lanes):
        series.add(lane, LaneRows(samples, lane))
    return series


def test_requests_count_where_they_ended() -> None:
    series = series_of(ended(100 * MS), ended(240 * MS), ended(260 * MS), ended(999 * MS))
    assert [one.requests for one in series.seconds(until=SECOND)] == [2, 1, 0, 1]


def test_the_last_end_is_told() -> None:
    rows = LaneRows(samples_of([ended(700 * MS), ended(900 * MS), ended(20 * MS)]), PROXIED)
    assert TimeSeries(lanes=1).add(PROXIED, rows) == 900 * MS


def test_a_slice_has_rate_percentiles_and_errors() -> None:
    rows = [ended(100 * MS, service=ms * MS) for ms in range(1, 11)]
    rows += [ended(100 * MS, outcome=CUT), ended(100 * MS, outcome=CANCELLED)]
    (one,) = series_of(*rows).seconds(until=250 * MS)
    assert (one.at_s, one.length_s) == (0, 0.25)
    assert (one.requests, one.errors, one.requests_per_second) == (12, 1, 40)
    assert one.p50_ms == pytest.approx(5, rel=1e-3)
    assert one.p99_ms == pytest.approx(10, rel=1e-3)
    assert (one.direct_p50_ms, one.direct_p99_ms) == (None, None)


def test_rows_in_several_slices_are_told_apart() -> None:
    series = series_of(
        ended(200 * MS, service=MS), ended(300 * MS, outcome=CUT), ended(300 * MS, service=3 * MS)
    )
    first, second = series.seconds(until=500 * MS)
    assert (first.requests, first.errors, first.p50_ms) == (1, 0, 1)
    assert (second.requests, second.errors, second.p50_ms) == (2, 1, 3)


def test_the_baseline_stands_beside_it() -> None:
    series = series_of(ended(MS * 50), ended(MS * 50, DIRECT, service=4 * MS), lanes=2)
    (one,) = series.seconds(until=250 * MS)
    assert (one.requests, one.p50_ms, one.direct_p50_ms, one.direct_p99_ms) == (1, 10, 4, 4)


def test_a_slice_without_answers_has_no_percentiles() -> None:
    first, second = series_of(ended(300 * MS)).seconds(until=500 * MS)
    assert (first.requests, first.p50_ms, second.requests) == (0, None, 1)


def test_requests_in_flight_are_those_of_all_processes() -> None:
    series = TimeSeries(lanes=1)
    series.note_in_flight(100 * MS, 0, 9)
    series.note_in_flight(250 * MS, 0, 3)
    series.note_in_flight(200 * MS, 1, 4)
    series.note_in_flight(500 * MS, 1, 5)
    first, second = series.seconds(until=500 * MS)
    assert (first.in_flight, second.in_flight) == (7, 8)


def test_a_minute_is_shown_in_seconds() -> None:
    series = series_of(*(ended(at * 100 * MS + 50 * MS) for at in range(600)))
    seconds = series.seconds(until=60 * SECOND)
    assert [one.at_s for one in seconds] == list(range(60))
    assert {one.requests for one in seconds} == {10}


def test_a_last_slice_that_was_hardly_begun_joins_the_one_before() -> None:
    series = series_of(ended(100 * MS), ended(260 * MS))
    (one,) = series.seconds(until=260 * MS)
    assert (one.requests, one.length_s) == (2, 0.26)


def test_what_comes_after_the_end_is_in_no_slice() -> None:
    series = series_of(ended(250 * MS))
    series.note_in_flight(3 * SECOND, 0, 0)
    (one,) = series.seconds(until=250 * MS)
    assert one.requests == 1
    assert series.seconds(until=0) == ()


def test_a_last_slice_is_as_long_as_the_run() -> None:
    _, last = series_of(ended(100 * MS), ended(400 * MS)).seconds(until=450 * MS)
    assert (last.at_s, last.length_s, last.requests_per_second) == (0.25, 0.2, 5)


def test_memory_is_bounded_whatever_the_length() -> None:
    random = Random(1)
    series = TimeSeries(lanes=1)
    hours = 3
    for second in range(0, hours * 3600, 8):
        row = ended(second * SECOND + SECOND // 2, service=random.randrange(1, 100) * MS)
        series.add(PROXIED, LaneRows(samples_of([row]), PROXIED))
    seconds = series.seconds(until=hours * 3600 * SECOND)
    assert 300 <= len(seconds) <= MOST_SLICES
    assert sum(one.requests for one in seconds) == hours * 450
    assert {one.length_s for one in seconds[:-1]} == {32.0}
    whole = series.whole_slices(until=hours * 3600 * SECOND)
    assert latency_of(whole, PROXIED).count >= hours * 450 - 4


def test_late_rows_still_find_a_slice_that_rests() -> None:
    series = series_of(*(ended(at * SECOND) for at in range(1, 60)))
    series.add(PROXIED, LaneRows(samples_of([ended(SECOND + MS, service=20 * MS)]), PROXIED))
    assert series.seconds(until=60 * SECOND)[1].requests == 2


def test_recent_latencies_are_of_whole_slices() -> None:
    series = series_of(
        ended(100 * MS, service=MS), ended(600 * MS, service=6 * MS), ended(800 * MS)
    )
    latency, length_s = series.recent(PROXIED, until=780 * MS, length=SECOND // 2)
    assert (latency.count, length_s) == (1, 0.5)
    assert latency.max == 6 * MS


def test_before_the_first_whole_slice_nothing_is_recent() -> None:
    latency, length_s = series_of(ended(100 * MS)).recent(PROXIED, until=200 * MS, length=SECOND)
    assert (latency.count, length_s) == (0, 0)


def test_rates_are_of_whole_seconds_and_of_what_was_answered() -> None:
    rows = [ended(at * 100 * MS) for at in range(1, 31)]
    series = series_of(*rows, ended(50 * MS, outcome=CUT))
    assert series.rates(until=2 * SECOND + 1) == (9, 10)


def test_rates_of_a_very_long_run_are_of_longer_slices() -> None:
    series = series_of(*(ended(at * SECOND + 1) for at in range(1000)))
    assert len(series.rates(until=1000 * SECOND)) == 500
    assert set(series.rates(until=1000 * SECOND)) == {1.0}
