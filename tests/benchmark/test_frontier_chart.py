from __future__ import annotations

import pytest

from llm_proxy.benchmark.frontier_chart import frontier_chart
from tests.benchmark.charts import find, points, texts, value_at
from tests.benchmark.reports import make_frontier, make_point, make_probe

LOG = {"is_log_y": True}


def test_every_window_stands_at_its_rate_and_p99() -> None:
    chart = frontier_chart(make_frontier())
    assert chart is not None
    dots = find(chart, "dot")
    places = [
        value_at(chart, float(it.get("cx", "")), float(it.get("cy", "")), **LOG) for it in dots
    ]
    expected = [(100, 3), (1000, 4), (1000, 4.5), (1500, 8), (2000, 71), (4000, 900)]
    for place, window in zip(places, expected, strict=True):
        assert place == pytest.approx(window, rel=0.02)
    hollow = ["hollow" in it.get("class", "") for it in dots]
    assert hollow == [True, False, False, False, False, True]
    assert dots[5][0].text == "4,000/s: p99 900 ms (only half were answered: (-x))"


def test_frontier_is_level_at_each_limit_and_rises_at_its_rate() -> None:
    chart = frontier_chart(make_frontier())
    assert chart is not None
    corners = points(chart, "line proxied", **LOG)
    expected = [(0, 5), (1000, 5), (1000, 10), (1500, 10), (1500, 100), (2000, 100)]
    for corner, wanted in zip(corners, expected, strict=True):
        assert corner == pytest.approx(wanted, rel=0.02, abs=2)
    assert len(find(chart, "limit")) == 4


def test_limits_are_named_where_their_names_do_not_meet() -> None:
    close = tuple(make_point(ms, 10.0, p99_ms=1.0) for ms in (5.0, 5.1, 100.0))
    chart = frontier_chart(make_frontier(points=close))
    assert chart is not None
    assert len(find(chart, "limit")) == 3
    assert texts(chart, "axis-name end") == ["5 ms", "100 ms"]


def test_rates_far_apart_have_a_logarithmic_axis() -> None:
    far = (make_point(1.0, 10.0, p99_ms=1.0), make_point(5.0, 4000.0, p99_ms=4.0))
    chart = frontier_chart(make_frontier(points=far))
    assert chart is not None
    corners = points(chart, "line proxied", is_log_x=True, is_log_y=True)
    assert corners[-1] == pytest.approx((4000, 5), rel=0.02)
    assert corners[1] == pytest.approx((10, 1), rel=0.02)


def test_without_any_rate_there_is_no_line() -> None:
    found = make_frontier(points=(make_point(1.0, None),), probes=(make_probe(5.0),))
    chart = frontier_chart(found)
    assert chart is not None
    assert find(chart, "line") == []


def test_without_answers_there_is_no_chart() -> None:
    assert frontier_chart(make_frontier(probes=(make_probe(5.0, p99_ms=None),))) is None
