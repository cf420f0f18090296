from __future__ import annotations

from llm_proxy.benchmark.lane_rows import LaneRows
from llm_proxy.benchmark.plan import DIRECT, PROXIED
from llm_proxy.benchmark.samples import CANCELLED, CUT, NONE, OK
from tests.benchmark.framing import row, samples_of

MIXED = samples_of(
    [
        row(PROXIED, service=1, late=10, received=5),
        row(DIRECT, service=2, received=6),
        row(PROXIED, service=3, outcome=CUT, received=7),
        row(PROXIED, service=4, outcome=CANCELLED, received=8),
        row(PROXIED, service=5, first_token=9, received=9),
    ]
)


def test_a_lane_has_its_own_rows() -> None:
    rows = LaneRows(MIXED, PROXIED)
    assert len(rows) == 4
    assert list(rows.column("received")) == [5, 7, 8, 9]
    assert list(LaneRows(MIXED, DIRECT).column("received")) == [6]


def test_answered_rows_are_those_that_ended_well() -> None:
    rows = LaneRows(MIXED, PROXIED)
    assert list(rows.answered("received")) == [5, 9]
    assert list(rows.is_answered()) == [1, 0, 0, 1]
    assert list(rows.is_error()) == [0, 1, 0, 0]
    assert rows.outcomes() == {OK: 2, CUT: 1, CANCELLED: 1}


def test_what_was_not_measured_is_left_out() -> None:
    assert list(LaneRows(MIXED, PROXIED).measured("first_token")) == [9]
    assert list(LaneRows(MIXED, DIRECT).measured("first_token")) == []


def test_latency_is_lateness_and_service() -> None:
    rows = LaneRows(MIXED, PROXIED)
    assert not rows.is_on_time
    assert list(rows.latency) == [11, 3, 4, 5]
    assert list(rows.answered_latency) == [11, 5]


def test_latency_is_indexed_of_those_that_ended_well() -> None:
    found = LaneRows(MIXED, PROXIED).indexed_latency
    assert (found.indices, found.least, found.most, found.total) == ([11, 5], 5, 11, 16)
    assert not LaneRows(samples_of([]), PROXIED).indexed_latency.indices


def test_without_lateness_it_is_service() -> None:
    rows = LaneRows(samples_of([row(service=3), row(service=4)]), PROXIED)
    assert rows.is_on_time
    assert list(rows.answered_latency) == [3, 4]


def test_no_rows_are_no_rows() -> None:
    rows = LaneRows(samples_of([]), PROXIED)
    assert (len(rows), rows.outcomes(), list(rows.answered_latency)) == (0, {}, [])


def test_a_lane_without_rows_is_empty() -> None:
    rows = LaneRows(samples_of([row(PROXIED, first_token=NONE)]), DIRECT)
    assert (len(rows), list(rows.measured("service"))) == (0, [])


def test_rows_that_ended_well_are_counted_until_a_time() -> None:
    rows = LaneRows(
        samples_of([row(due=10, late=5, service=5), row(due=10, service=11), row(outcome=CUT)]),
        PROXIED,
    )
    assert [rows.answered_until(end) for end in (19, 20, 21)] == [0, 1, 2]
    assert LaneRows(MIXED, DIRECT).answered_until(-1) == 0
