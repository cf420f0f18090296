from __future__ import annotations

import pytest

from llm_proxy.benchmark.metric import FAMILIES, STATISTICS, frontier_metric, parse_metric
from llm_proxy.benchmark.results import Results
from tests.benchmark.reports import (
    make_added,
    make_frontier,
    make_goodput,
    make_report,
    make_side,
    make_stream_report,
)


@pytest.mark.parametrize(
    "name",
    ["rps", "errors", "goodput", *STATISTICS, *(f"{f}.p50" for f in FAMILIES if f != "latency")],
)
def test_a_name_is_read_as_it_is_written(name: str) -> None:
    assert parse_metric(name).name == name


def test_the_latency_may_be_named() -> None:
    assert parse_metric(" Latency.P99.9 ").name == "p99.9"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("p98", "'p98' isn't a figure; there are rps, errors, goodput, min, mean"),
        ("", "isn't a figure"),
        ("rps.p50", "isn't a figure"),
        ("ttft", "isn't a figure of ttft; it has min, mean, p50"),
        ("ttft.typical", "isn't a figure of ttft"),
        ("x" * 1000, f"'{'x' * 40}' isn't a figure"),
    ],
)
def test_an_unknown_name_is_told_what_exists(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_metric(name)


def test_a_limit_of_the_frontier_is_a_figure() -> None:
    metric = parse_metric("frontier.5.0ms")
    assert metric == frontier_metric(5.0) == parse_metric("FRONTIER.5ms")
    assert (metric.name, metric.unit, metric.more_is_better) == ("frontier.5ms", "rps", True)
    report = make_report(frontier=make_frontier())
    assert metric.value(report) == 1000
    assert metric.is_of_search
    for name in ("frontier.1ms", "frontier.3ms"):  # no rate kept it; nobody asked for it
        assert parse_metric(name).value(report) is None
    assert metric.value(make_report()) is metric.value(make_side(median_ms=1)) is None
    with pytest.raises(ValueError, match=r"write frontier\.5ms"):
        parse_metric("frontier.fast")


def test_each_figure_comes_from_its_place() -> None:
    report = make_stream_report(goodput=make_goodput())
    assert report.latency_ms and report.service_ms and report.first_byte_ms and report.streams
    assert report.streams.ttft_ms and report.streams.inter_token_ms
    assert report.streams.second_token_ms
    expected = {
        "rps": report.requests_per_second,
        "errors": report.error_rate,
        "goodput": 0.973,
        "p99.9": report.latency_ms.p99_9,
        "service.max": report.service_ms.max,
        "first_byte.min": report.first_byte_ms.min,
        "ttft.p90": report.streams.ttft_ms.p90,
        "second_token.p50": report.streams.second_token_ms.p50,
        "inter_token.mean": report.streams.inter_token_ms.mean,
        "added.typical": 9.8,
        "added_ttft.typical": 0.4,
        "added_inter_token.typical": 0.002,
    }
    assert {name: parse_metric(name).value(report) for name in expected} == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_not_measured_has_no_value_but_a_reason(family: str) -> None:
    side = make_side(median_ms=1.0, latency_ms=None, service_ms=None, first_byte_ms=None)
    metric = parse_metric(f"{family}.p50")
    assert metric.value(side) is None
    assert metric.absence


def test_what_is_added_is_in_a_whole_report_only() -> None:
    metric = parse_metric("added.p50")
    assert metric.value(make_side(median_ms=1.0)) is None
    assert metric.value(make_report(added_latency_ms=make_added(0.2))) == pytest.approx(0.2)


def test_results_know_what_is_added_and_their_side() -> None:
    report = make_report()
    side = make_side(median_ms=1.0)
    results = Results(
        side=side,
        direct=side,
        added_latency_ms=make_added(0.2),
        added_ttft_ms=None,
        added_inter_token_ms=None,
        fidelity=None,
        rig=report.rig,
        series=(),
        spread={},
        histograms={},
    )
    assert parse_metric("added.typical").value(results) == 0.2
    assert parse_metric("added_ttft.p50").value(results) is None
    assert parse_metric("rps").value(results) == side.requests_per_second


def test_values_are_shown_with_their_unit() -> None:
    assert parse_metric("p50").show(0.00123) == "0.00123 ms"
    assert parse_metric("p50").show(-71.246) == "-71.25 ms"
    assert parse_metric("p50").show(0) == "0 ms"
    assert parse_metric("rps").show(25432.1) == "25,432 requests/s"
    assert parse_metric("errors").show(0.0125) == "1.25 %"
    assert parse_metric("goodput").show(0.999996) == "99.9996 %"  # not 100


def test_a_goodput_that_nobody_asked_for_has_no_value_but_a_reason() -> None:
    goodput = parse_metric("goodput")
    assert goodput.value(make_report()) is None
    assert "--goodput does" in goodput.absence
    assert goodput.more_is_better
