from __future__ import annotations

from xml.etree.ElementTree import Element

import msgspec
import pytest

from llm_proxy.benchmark import svg_charts as charts
from llm_proxy.benchmark.report import Histogram, Report
from tests.benchmark.charts import find, points, texts, value_at
from tests.benchmark.reports import make_report, make_series, make_side

BARE = {"cdf": (), "histogram": None, "direct": None, "series": ()}


def _drawn(chart: Element | None) -> Element:
    assert chart is not None
    return chart


def test_the_cdf_passes_through_its_points() -> None:
    report = make_report()
    assert report.direct is not None
    chart = _drawn(charts.cdf_chart(report))
    for lane, expected in (("proxied", report.cdf), ("direct", report.direct.cdf)):
        drawn = points(chart, f"line {lane}", is_log_x=True)
        assert len(drawn) == 2 * len(expected) + 1
        for (ms, share), (at, height) in zip(expected, drawn[2::2], strict=True):
            assert at == pytest.approx(ms, rel=0.01)
            assert height == pytest.approx(share, abs=0.005)


def test_the_cdf_stands_still_between_its_points() -> None:
    chart = _drawn(charts.cdf_chart(make_report(cdf=((1.0, 0.25), (10.0, 1.0)), direct=None)))
    shares = [share for _ms, share in points(chart, "line proxied", is_log_x=True)]
    assert shares == pytest.approx([0, 0, 0.25, 0.25, 1], abs=0.005)


def test_each_curve_carries_its_name() -> None:
    assert texts(_drawn(charts.cdf_chart(make_report())), "name") == ["direct", "proxied"]
    alone = _drawn(charts.cdf_chart(make_report(direct=None)))
    assert texts(alone, "name") == ["proxied"]
    assert find(alone, "line direct") == []


def test_the_bars_are_as_high_as_their_counts() -> None:
    histogram = Histogram(edges_ms=(1.0, 2.0, 4.0, 8.0), counts=(10, 0, 40))
    chart = _drawn(charts.histogram_chart(make_report(histogram=histogram, direct=None)))
    bars = find(chart, "bar")
    for bar, expected in zip(bars, [(1, 2, 10), (4, 8, 40)], strict=True):
        left, top, width = (float(bar.get(name, "")) for name in ("x", "y", "width"))
        low, count = value_at(chart, left, top, is_log_x=True)
        high, _count = value_at(chart, left + width, top, is_log_x=True)
        assert (low, high, count) == pytest.approx(expected, rel=0.02)
    assert [bar.findtext("title") for bar in bars] == [
        "1 ms to 2 ms: 10 requests",
        "4 ms to 8 ms: 40 requests",
    ]


def test_the_direct_histogram_is_an_outline() -> None:
    direct = make_side(median_ms=1, histogram=Histogram(edges_ms=(1.0, 2.0, 4.0), counts=(3, 6)))
    chart = _drawn(charts.histogram_chart(make_report(direct=direct)))
    heights = [count for _ms, count in points(chart, "line direct", is_log_x=True)]
    assert heights == pytest.approx([0, 3, 3, 6, 6, 0], abs=0.7)


def test_the_rate_is_drawn_at_the_middle_of_each_slice() -> None:
    report = make_report()
    drawn = points(_drawn(charts.rate_chart(report)), "line proxied")
    assert len(drawn) == len(report.series)
    for second, (at, rate) in zip(report.series, drawn, strict=True):
        assert at == pytest.approx(second.at_s + 0.5, abs=0.02)
        assert rate == pytest.approx(second.requests_per_second, rel=0.005)


def test_errors_are_marked_when_they_happened() -> None:
    chart = _drawn(charts.rate_chart(make_report()))
    marks = [mark.findtext("title") for mark in find(chart, "error-mark")]
    assert marks == ["1 errors at 3 s", "1 errors at 7 s"]
    assert "2 in all" in "".join(chart.itertext())
    quiet = _drawn(charts.rate_chart(make_report(series=make_series(errors=0))))
    assert find(quiet, "error-mark") == []


@pytest.mark.parametrize(
    ("class_", "field"),
    [
        ("proxied p50", "p50_ms"),
        ("proxied p99", "p99_ms"),
        ("direct p50", "direct_p50_ms"),
        ("direct p99", "direct_p99_ms"),
    ],
)
def test_latency_over_time_has_both_sides(class_: str, field: str) -> None:
    report = make_report()
    drawn = points(_drawn(charts.latency_chart(report)), f"line {class_}")
    expected = [getattr(second, field) for second in report.series]
    assert [ms for _at, ms in drawn] == pytest.approx(expected, abs=0.005)


def test_a_line_is_broken_where_nothing_was_measured() -> None:
    series = list(make_series(direct_p50_ms=None, direct_p99_ms=None))
    series[5] = msgspec.structs.replace(series[5], p50_ms=None)
    chart = _drawn(charts.latency_chart(make_report(series=tuple(series))))
    assert len(find(chart, "line proxied p50")) == 2
    assert find(chart, "line direct") == []


def test_a_lonely_slice_is_a_dot() -> None:
    chart = _drawn(charts.latency_chart(make_report(series=make_series(length=1))))
    assert len(find(chart, "dot proxied p50")) == 1


def test_latencies_far_apart_get_a_logarithmic_axis() -> None:
    chart = _drawn(charts.latency_chart(make_report(series=make_series(p99_ms=5000.0))))
    values = [float(tick.get("data-value", "")) for tick in find(chart, "tick-y")]
    ratios = {round(b / a, 1) for a, b in zip(values, values[1:], strict=False)}
    assert ratios == {10.0}


def test_names_at_the_end_keep_their_distance() -> None:
    same = make_series(p50_ms=1.0, p99_ms=1.0, direct_p50_ms=1.0, direct_p99_ms=1.0)
    chart = _drawn(charts.latency_chart(make_report(series=same)))
    heights = [float(name.get("y", "")) for name in find(chart, "name")]
    gaps = [b - a for a, b in zip(heights, heights[1:], strict=False)]
    assert len(heights) == 4
    assert min(gaps) >= 13


@pytest.mark.parametrize(
    "chart",
    [charts.cdf_chart, charts.histogram_chart, charts.rate_chart, charts.latency_chart],
)
def test_every_chart_has_a_name_and_none_without_data(chart: object) -> None:
    draw = getattr(charts, getattr(chart, "__name__", ""))
    (svg,) = _drawn(draw(make_report())).iter("svg")
    assert svg.get("role") == "img"
    assert svg.findtext("title") == svg.get("aria-label")
    assert draw(make_report(**BARE)) is None


def test_a_direct_side_alone_has_a_cdf() -> None:
    report: Report = make_report(cdf=(), histogram=None)
    assert texts(_drawn(charts.cdf_chart(report)), "name") == ["direct"]
    assert charts.histogram_chart(report) is None


def test_latencies_of_zero_are_drawn_at_the_edge() -> None:
    chart = _drawn(charts.cdf_chart(make_report(cdf=((0.0, 0.5), (1.0, 1.0)), direct=None)))
    assert len(find(chart, "line proxied")) == 1


def test_a_rate_of_zero_has_an_axis() -> None:
    chart = _drawn(charts.rate_chart(make_report(series=make_series(requests_per_second=0.0))))
    assert points(chart, "line proxied")[0][1] == pytest.approx(0, abs=0.01)
