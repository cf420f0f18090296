from __future__ import annotations

import msgspec

from llm_proxy.benchmark.repeats import median_run, spread_of, summary
from llm_proxy.benchmark.report import Run, Spread
from tests.benchmark.reports import (
    make_added,
    make_distribution,
    make_goodput,
    make_runs,
    make_side,
)


def run(median: float | None, rate: float = 100.0) -> Run:
    return Run(
        requests=10,
        errors=0,
        requests_per_second=rate,
        latency_ms=None if median is None else make_distribution(median),
    )


def test_median_run_is_in_the_middle_by_latency() -> None:
    assert median_run([run(3), run(1), run(2)]) == 2
    assert median_run([run(5)]) == 0


def test_of_two_the_better_is_taken() -> None:
    assert median_run([run(3), run(1)]) == 1


def test_run_without_answers_is_the_slowest() -> None:
    assert median_run([run(None), run(2), run(1)]) == 1


def test_without_any_answer_the_rate_decides() -> None:
    assert median_run([run(None, 1), run(None, 3), run(None, 2)]) == 2


def test_summary_is_of_the_side_and_what_was_added() -> None:
    side = make_side(median_ms=2)
    one = summary(side, make_added(0.5))
    assert (one.requests, one.errors, one.latency_ms) == (2000, 2, side.latency_ms)
    assert one.added_typical_ms == 0.5
    assert summary(side, None).added_typical_ms is None
    assert one.goodput_share is None
    good = make_side(median_ms=2, goodput=make_goodput())
    assert summary(good, None).goodput_share == 0.973


def test_spread_is_the_least_and_the_most_of_all_runs() -> None:
    spread = spread_of(make_runs(5))
    assert spread["requests_per_second"] == Spread(low=197.0, high=201.0)
    assert spread["added_latency_ms.typical"].low == 0.1
    assert "goodput.share" not in spread
    assert set(spread) >= {f"latency_ms.{name}" for name in ("mean", "p50", "p90", "p99")}


def test_goodput_has_a_spread_where_it_was_measured() -> None:
    runs = [msgspec.structs.replace(run(2), goodput_share=share) for share in (0.9, 1.0)]
    assert spread_of(runs)["goodput.share"] == Spread(low=0.9, high=1.0)


def test_figure_that_one_run_lacks_has_no_spread() -> None:
    runs = make_runs(2)
    lacking = msgspec.structs.replace(runs[1], latency_ms=None)
    assert set(spread_of([runs[0], lacking])) == {
        "requests_per_second",
        "added_latency_ms.typical",
    }
