from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.benchmark.metric import FAMILIES, STATISTICS
from llm_proxy.benchmark.thresholds import (
    check_error_rate,
    parse_max_regression,
    parse_share,
    parse_slo,
)
from llm_proxy.errors import WrongUsage
from tests.benchmark.reports import make_distribution, make_report, make_side


def test_a_list_of_limits_is_read_in_its_order() -> None:
    limits = parse_slo("p99=50ms, rps=500/s,errors=1%,ttft.p50=1.5s,added.typical=250us")
    assert [(it.metric.name, it.limit) for it in limits] == [
        ("p99", 50.0),
        ("rps", 500.0),
        ("errors", 0.01),
        ("ttft.p50", 1500.0),
        ("added.typical", 0.25),
    ]
    assert [it.name for it in limits[:3]] == ["p99<=50ms", "rps>=500/s", "errors<=1%"]


@pytest.mark.parametrize("text", ["p50=250us", "p50=250µs", "p50=250μs", "p50=0.25ms"])
def test_microseconds_may_be_written_in_three_ways(text: str) -> None:
    assert parse_slo(text)[0].limit == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--slo: '': a limit is written FIGURE=LIMIT, like p99=50ms"),
        ("p99=50ms,", "--slo: '': a limit is written"),
        ("p99", "--slo: 'p99': a limit is written"),
        ("p99=50", "--slo: 'p99=50': '50' isn't a duration; write it like"),
        ("p99=-1ms", "isn't a duration"),
        (
            "p98=50ms",
            "--slo: 'p98=50ms': 'p98' isn't a figure; there are rps, errors, goodput, min",
        ),
        ("rps=fast", "'fast' isn't a rate; write it like 500 or 500/s"),
        ("errors=1", "'1' isn't a percentage; write it like 1%"),
        ("p99=1ms,latency.p99=2ms", "'latency.p99=2ms': p99 has a limit already"),
    ],
)
def test_a_bad_limit_is_named_with_its_rule(text: str, message: str) -> None:
    with pytest.raises(WrongUsage, match=message.replace("'", ".")):
        parse_slo(text)


def test_max_regression_takes_percentages_only() -> None:
    limits = parse_max_regression("p99=10%,rps=2.5%")
    assert [(it.metric.name, it.share) for it in limits] == [("p99", 0.1), ("rps", 0.025)]
    with pytest.raises(WrongUsage, match="--max-regression: 'p99=50ms': '50ms' isn't a percentage"):
        parse_max_regression("p99=50ms")


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_slo, parse_max_regression):
        try:
            assert len(parse(text)) == text.count(",") + 1
        except WrongUsage as exc:
            assert len(str(exc)) < 700


@given(
    st.sampled_from(sorted(set(FAMILIES) - {"latency"})),
    st.sampled_from(STATISTICS),
    st.floats(min_value=0.001, max_value=1e6),
)
def test_what_is_written_is_what_is_checked(family: str, statistic: str, ms: float) -> None:
    (threshold,) = parse_slo(f"{family}.{statistic}={ms:.6f}ms")
    assert threshold.metric.name == f"{family}.{statistic}"
    assert threshold.limit == pytest.approx(ms, abs=1e-5)


def test_a_latency_at_its_limit_is_within_it() -> None:
    side = make_side(median_ms=1.0, latency_ms=make_distribution(1.0))
    assert side.latency_ms
    (at_most,) = parse_slo(f"max={side.latency_ms.max}ms")
    assert at_most.check(side).passed
    (less,) = parse_slo(f"max={side.latency_ms.max - 0.001:.4f}ms")
    check = less.check(side)
    assert not check.passed
    assert check.kind == "slo"
    assert check.message == f"max is {side.latency_ms.max} ms, over {less.limit:.4g} ms"


def test_a_rate_is_at_least_what_was_asked_for() -> None:
    side = make_side(median_ms=1.0, requests_per_second=500.0)
    assert parse_slo("rps=500")[0].check(side).passed
    check = parse_slo("rps=501")[0].check(side)
    assert not check.passed
    assert check.message == "the rate is 500 requests/s, below 501 requests/s"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("p99=1s", "p99 wasn't measured: no request was answered below 400"),
        ("ttft.p99=1s", "ttft.p99 wasn't measured: no stream said anything"),
        ("added.typical=1s", "added.typical wasn't measured: nothing was measured beside it"),
    ],
)
def test_a_figure_that_was_not_measured_fails_with_the_reason(text: str, reason: str) -> None:
    report = make_report(latency_ms=None, added_latency_ms=None)
    check = parse_slo(text)[0].check(report)
    assert not check.passed
    assert check.message.startswith(reason)


def test_the_error_rate_may_be_what_is_allowed() -> None:
    side = make_side(median_ms=1.0, error_rate=0.01)
    assert check_error_rate(side, 0.01).passed
    check = check_error_rate(side, 0.0)
    assert (check.kind, check.name, check.passed) == ("error-rate", "errors<=0%", False)
    assert check.message == "the error rate is 1 %, over 0 %"


def test_a_share_is_a_percentage() -> None:
    assert parse_share(" 12.5 % ") == 0.125
    with pytest.raises(ValueError, match="isn't a percentage"):
        parse_share("0.1")
