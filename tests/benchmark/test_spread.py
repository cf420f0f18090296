from __future__ import annotations

from random import Random

import pytest

from llm_proxy.benchmark.hdr_histogram import HdrHistogram
from llm_proxy.benchmark.lane_rows import LaneRows
from llm_proxy.benchmark.plan import PROXIED
from llm_proxy.benchmark.report import Spread
from llm_proxy.benchmark.spread import spread
from llm_proxy.benchmark.time_series import TimeSeries
from tests.benchmark.framing import MS, SECOND, ended, samples_of


def spread_of(latencies: list[list[int]]) -> dict[str, Spread]:
    """Of quarters of a second, with the latencies of each in ticks."""
    series, whole = TimeSeries(lanes=1), HdrHistogram()
    for number, one in enumerate(latencies):
        at = (2 * number + 1) * SECOND // 8
        rows = [ended(at, service=service) for service in one]
        series.add(PROXIED, LaneRows(samples_of(rows), PROXIED))
        whole.record_all(one)
    end = len(latencies) * SECOND // 4
    slices = series.whole_slices(until=end)
    return spread(whole, slices, length=series.length, duration_s=end / SECOND)


def noise(random: Random, count: int, *, mean_ms: float = 10.0) -> list[int]:
    return [int(random.lognormvariate(0, 0.3) * mean_ms * MS) for _ in range(count)]


def test_every_figure_is_within_its_spread() -> None:
    random = Random(1)
    found = spread_of([noise(random, 100 + random.randrange(20)) for _ in range(20)])
    assert sorted(found) == [
        *("latency_ms.mean", "latency_ms.p50", "latency_ms.p90", "latency_ms.p99"),
        "requests_per_second",
    ]
    assert found["latency_ms.p50"].low < 10 < found["latency_ms.p50"].high
    assert found["latency_ms.p50"].high - found["latency_ms.p50"].low < 1
    assert found["requests_per_second"].low < 438 < found["requests_per_second"].high


@pytest.mark.parametrize("metric", ["mean", "p50", "p90"])
def test_the_interval_holds_the_truth_95_times_of_100(metric: str) -> None:
    truth = {"mean": 10 * 1.046, "p50": 10.0, "p90": 10 * 1.4688}[metric]
    random = Random(2)
    hits = 0
    for _ in range(60):
        found = spread_of([noise(random, 40) for _ in range(6)])[f"latency_ms.{metric}"]
        hits += found.low <= truth <= found.high
    # The wider of two intervals holds it somewhat more often.
    assert 54 <= hits <= 60


def test_sections_that_differ_make_it_wide() -> None:
    random = Random(3)
    steady = spread_of([noise(random, 200) for _ in range(8)])["latency_ms.p50"]
    swinging = spread_of([noise(random, 200, mean_ms=8 + 4 * (n % 2)) for n in range(8)])
    widened = swinging["latency_ms.p50"]
    assert widened.high - widened.low > 4 * (steady.high - steady.low)


def test_one_slice_has_a_spread_by_its_requests() -> None:
    found = spread_of([noise(Random(4), 100)])
    assert found["latency_ms.mean"].high - found["latency_ms.mean"].low == pytest.approx(
        1.3, abs=0.5
    )
    rate = found["requests_per_second"]
    assert rate.low < 400 < rate.high
    # Of 100 requests p99 may be anything from the 97th to the slowest.
    assert found["latency_ms.p99"].high - found["latency_ms.p99"].low > 0.5


def test_one_request_tells_nothing_of_the_next() -> None:
    assert spread_of([[10 * MS]]) == {}


def test_equal_latencies_have_no_spread() -> None:
    found = spread_of([[10 * MS] * 50] * 8)
    assert found["requests_per_second"] == Spread(low=200, high=200)
    assert found["latency_ms.mean"].high == pytest.approx(10, rel=1e-3)
