"""How sure figures are of which no spread was measured."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.benchmark.certainty import column, cpu_share, shares_of, spreads
from llm_proxy.benchmark.precision import digits, round_to
from llm_proxy.benchmark.report import PERCENTILES, Spread
from tests.benchmark.reports import distribution, make_added, make_distribution, make_process


def _half(spread: Spread) -> float:
    return (spread.high - spread.low) / 2


def test_four_times_the_requests_halve_the_doubt() -> None:
    random = Random(7)
    values = sorted(random.uniform(10, 20) for _ in range(40_000))
    few, many = (spreads(distribution(values[::step])) for step in (40, 10))
    for name in ("mean", "p50", "p90", "p99"):
        assert _half(few[name]) / _half(many[name]) == pytest.approx(2, rel=0.2)


def test_the_doubt_is_that_of_the_order_statistics() -> None:
    random = Random(8)
    values = sorted(random.uniform(0, 100) for _ in range(10_000))
    found = spreads(distribution(values))
    assert _half(found["p50"]) == pytest.approx(1.96 * 50 / math.sqrt(10_000), rel=0.05)
    assert _half(found["mean"]) == pytest.approx(1.96 * 28.87 / math.sqrt(10_000), rel=0.05)


def test_the_slowest_of_few_are_not_known_at_all_well() -> None:
    found = spreads(distribution([1.0] * 35 + [2.0, 3.0, 4.0, 5.0, 7.19]))
    assert _half(found["p95"]) > 0.5
    for name in ("p99", "p99.9", "max"):
        assert _half(found[name]) == pytest.approx(_half(found["p95"]))


def test_what_was_measured_counts_where_it_is_wider() -> None:
    times = make_distribution(10.0)
    wide = shares_of(times, {"latency_ms.p50": Spread(low=0, high=0)})
    assert spreads(times, wide) == spreads(times)
    known = shares_of(times, {"latency_ms.p50": Spread(low=times.p50 - 5, high=times.p50 + 5)})
    assert _half(spreads(times, known)["p50"]) == pytest.approx(5)


def test_a_column_without_a_spread_has_that_of_the_one_before() -> None:
    times = make_distribution(10.0)
    shares = shares_of(times, {"latency_ms.p90": Spread(low=times.p90 * 0.9, high=times.p90 * 1.1)})
    assert shares["p75"] == 0
    assert [shares[name] for name in ("p90", "p95", "max")] == pytest.approx([0.1] * 3)


def test_no_added_time_is_surer_than_the_typical_one() -> None:
    added = make_added(0.11, found=False)
    middle = (added.ci95[1] - added.ci95[0]) / 2
    assert all(_half(one) >= middle * 0.999 for one in spreads(added).values())


@given(
    st.lists(st.floats(0.001, 1000), min_size=2, max_size=50),
    st.dictionaries(st.sampled_from(PERCENTILES), st.floats(0, 3)),
)
def test_no_percentile_is_shown_above_the_next(
    values: list[float], known: dict[str, float]
) -> None:
    times = distribution(sorted(values))
    found = spreads(times, known)
    shown = [
        round_to(column(times, name), digits(column(times, name), found[name]))
        for name in (*PERCENTILES, "max")
    ]
    assert shown == sorted(shown)


def test_equal_values_leave_no_doubt() -> None:
    assert all(_half(one) == 0 for one in spreads(distribution([2.5] * 10)).values())


def test_cpu_time_is_known_to_the_tick_of_each_process() -> None:
    assert cpu_share(make_process(pids=(1,), cpu_s=0.5)) == pytest.approx(0.02)
    assert cpu_share(make_process(pids=(1, 2, 3, 4), cpu_s=0.5)) == pytest.approx(0.04)
    assert cpu_share(make_process(pids=(1,), cpu_s=0.01)) is None
