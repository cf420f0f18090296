from __future__ import annotations

import msgspec
import pytest

from llm_proxy.benchmark.interval_chart import interval_chart
from tests.benchmark.charts import find
from tests.benchmark.reports import make_added


@pytest.mark.parametrize("typical", [0.11, -3.0, 0.0, 250.0])
def test_zero_the_typical_value_and_its_interval_are_where_the_axis_says(typical: float) -> None:
    added = make_added(typical)
    chart = interval_chart("Latency", added)
    ticks = [
        (float(it.get("x", "")), float(it.get("data-value", ""))) for it in find(chart, "tick")
    ]
    (start, low), (end, high) = ticks[0], ticks[-1]

    def value(pixel: str | None) -> float:
        return low + (float(pixel or "") - start) / (end - start) * (high - low)

    (zero,), (dot,), (interval,) = (find(chart, name) for name in ("zero", "typical", "ci"))
    right = float(interval.get("x", "")) + float(interval.get("width", ""))
    near = (high - low) / 300
    assert value(zero.get("x1")) == pytest.approx(0, abs=near)
    assert value(dot.get("cx")) == pytest.approx(typical, abs=near)
    assert value(interval.get("x")) == pytest.approx(added.ci95[0], abs=near)
    assert value(str(right)) == pytest.approx(added.ci95[1], abs=near)


def test_it_says_in_words_what_it_shows() -> None:
    label = interval_chart("Latency", make_added(0.1)).get("aria-label")
    assert label == "Latency: 100 µs, 95 % between 92 µs and 108 µs"


def test_an_interval_of_nothing_is_drawn() -> None:
    added = msgspec.structs.replace(make_added(0.0), ci95=(0.0, 0.0))
    assert len(find(interval_chart("Latency", added), "ci")) == 1
