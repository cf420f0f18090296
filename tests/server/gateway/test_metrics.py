from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.measurements import DURATION_BOUNDS, Series
from llm_proxy.server.gateway.metrics import MAX_UNCOUNTED, PEAK_WINDOW_S, Histogram, Metrics


def counters(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], int | float]:
    return {(series.name, series.labels): series.value for series in metrics.counters()}


def test_an_exchange_is_counted_by_its_status() -> None:
    metrics = Metrics()
    metrics.ended(("openai", 200, "", 0.5, 0.4, 0.3, 10, 1000, False))
    metrics.ended(("openai", 200, "", 0.5, 0.4, 0.3, 20, 2000, True))
    metrics.ended(("", 400, "invalid_request", 0.001, 0.0, 0.0, 0, 0, False))
    found = counters(metrics)
    assert found["requests", ("openai", "200")] == 2
    assert found["requests", ("", "400")] == 1
    assert found["request_bytes", ("openai",)] == 30
    assert found["response_bytes", ("openai",)] == 3000
    assert found["truncated_responses", ("openai",)] == 1
    assert found["errors", ("", "invalid_request")] == 1
    assert not any(name == "upstream_errors" for name, _ in found)


@pytest.mark.parametrize(
    ("status", "code", "failure"),
    [
        (502, "upstream_unreachable", "upstream_unreachable"),
        (502, "upstream_broken", "upstream_broken"),
        (200, "upstream_broken", "upstream_broken"),  # after the head
        (504, "upstream_timeout", "upstream_timeout"),
        (503, "", "status_503"),
        (500, "client_closed", "status_500"),
        (999, "", "status_other"),
        (503, "overloaded", None),
        (503, "circuit_open", None),
        (429, "", None),
        (200, "client_closed", None),
        (0, "client_closed", None),
    ],
)
def test_what_the_upstream_failed_is_told_apart(
    status: int, code: str, failure: str | None
) -> None:
    metrics = Metrics()
    metrics.ended(("openai", status, code, 0.1, 0.0, 0.0, 0, 0, False))
    found = counters(metrics)
    failures = {labels[1]: n for (name, labels), n in found.items() if name == "upstream_errors"}
    assert failures == ({} if failure is None else {failure: 1})
    assert found.get(("errors", ("openai", code))) == (1 if code else None)


@given(st.lists(st.integers(0, 999)))
def test_statuses_make_a_bounded_number_of_series(statuses: list[int]) -> None:
    metrics = Metrics()
    for status in statuses:
        metrics.ended(("openai", status, "", 0.1, 0.1, 0.1, 0, 0, False))
    found = {labels[1]: n for (name, labels), n in counters(metrics).items() if name == "requests"}
    assert sum(found.values()) == len(statuses)
    assert found.keys() <= {"none", "other", *map(str, range(100, 600))}


def test_exchanges_are_counted_once_however_many_there_are() -> None:
    metrics = Metrics()
    for count in range(1, MAX_UNCOUNTED + 2):
        metrics.ended(("openai", 200, "", 0.5, 0.4, 0.3, 1, 2, False))
        if count == MAX_UNCOUNTED // 2:
            assert counters(metrics)["requests", ("openai", "200")] == count
    found = counters(metrics)
    assert found == counters(metrics)
    assert found["requests", ("openai", "200")] == MAX_UNCOUNTED + 1
    assert found["response_bytes", ("openai",)] == 2 * (MAX_UNCOUNTED + 1)
    durations = {one.name: sum(one.counts) for one in metrics.distributions()}
    assert durations["request_duration_seconds"] == MAX_UNCOUNTED + 1


def test_apis_are_told_of_before_their_first_request() -> None:
    assert counters(Metrics(["openai"]))["request_bytes", ("openai",)] == 0


def test_times_that_never_came_are_in_no_histogram() -> None:
    metrics = Metrics()
    metrics.ended(("openai", 200, "", 0.5, 0.4, 0.3, 0, 0, False))
    metrics.ended(("openai", 502, "upstream_unreachable", 0.2, 0.0, 0.0, 0, 0, False))
    found = {one.name: one for one in metrics.distributions()}
    assert sum(found["request_duration_seconds"].counts) == 2
    assert found["request_duration_seconds"].total == pytest.approx(0.7)
    assert sum(found["first_byte_seconds"].counts) == 1
    assert sum(found["upstream_seconds"].counts) == 1
    assert found["upstream_seconds"].labels == ("openai",)


@given(st.floats(0, 1000))
def test_a_value_is_counted_below_the_first_bound_that_is_not_less(value: float) -> None:
    histogram = Histogram(DURATION_BOUNDS)
    histogram.add((value,))
    found = histogram.measure("x")
    (index,) = [i for i, count in enumerate(found.counts) if count]
    bounds = [*found.bounds, float("inf")]
    assert value <= bounds[index]
    assert index == 0 or value > bounds[index - 1]


def test_the_longest_lag_is_remembered_for_a_while() -> None:
    metrics = Metrics()
    metrics.lagged(0.002, 1000.0)
    metrics.lagged(0.5, 1001.0)
    metrics.lagged(0.003, 1002.0)
    assert metrics.peaks() == [Series("event_loop_lag_max_seconds", (), 0.5)]
    metrics.lagged(0.004, 1000.0 + PEAK_WINDOW_S)
    assert metrics.peaks()[0].value == 0.5
    metrics.lagged(0.005, 1000.0 + 2 * PEAK_WINDOW_S)
    assert metrics.peaks()[0].value == 0.005
    (lags, *_) = metrics.distributions()
    assert (lags.name, sum(lags.counts)) == ("event_loop_lag_seconds", 5)


def test_connections_and_tunnels_are_counted() -> None:
    metrics = Metrics()
    metrics.connected += 3
    metrics.tunnelled += 2
    metrics.tunnels += 1
    found = counters(metrics)
    assert found["client_connections", ()] == 3
    assert found["tunnels", ()] == 2
