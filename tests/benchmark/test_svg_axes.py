from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.benchmark import svg_axes as axes
from llm_proxy.benchmark.svg_axes import Scale
from tests.benchmark.charts import find, texts


def test_a_scale_ends_where_its_range_does() -> None:
    scale = Scale(low=0.0, high=50.0, start=100.0, end=200.0)
    assert (scale(0.0), scale(25.0), scale(50.0)) == (100.0, 150.0, 200.0)
    scale = Scale(low=0.1, high=10.0, start=0.0, end=200.0, is_log=True)
    assert (scale(0.1), scale(10.0)) == (0.0, 200.0)
    assert scale(1.0) == pytest.approx(100.0)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 10.0, [0, 2, 4, 6, 8, 10]),
        (0.0, 0.9, [0, 0.2, 0.4, 0.6, 0.8]),
        (-3.0, 9.0, [-2.5, 0, 2.5, 5, 7.5]),
    ],
)
def test_linear_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert axes.linear_ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.15, 3.0, [0.2, 0.5, 1, 2]),
        (1.0, 10_000.0, [1, 10, 100, 1000, 10_000]),
        (1e-4, 1e12, [1e-4, 1e-2, 1, 1e2, 1e4, 1e6, 1e8, 1e10, 1e12]),
    ],
)
def test_log_ticks_thin_out(low: float, high: float, expected: list[float]) -> None:
    assert axes.log_ticks(low, high) == pytest.approx(expected)


@given(
    st.floats(min_value=1e-4, max_value=1e6),
    st.floats(min_value=1.2, max_value=1e6),
    st.booleans(),
)
def test_an_axis_has_a_few_ticks_within_its_range(low: float, ratio: float, is_log: bool) -> None:
    ticks = Scale(low=low, high=low * ratio, start=0.0, end=1.0, is_log=is_log).ticks()
    assert 2 <= len(ticks) <= 10
    assert ticks == sorted(ticks)
    assert all(low * 0.998 <= tick <= low * ratio * 1.002 for tick in ticks)


def test_a_single_value_has_a_range() -> None:
    low, high = axes.log_range([5.0])
    assert low < 5.0 < high
    assert axes.log_range([]) == axes.log_range([1.0])
    assert axes.log_range([0.0, 1.0, 100.0]) == (1.0, 100.0)


def test_a_frame_names_its_axes_and_ticks() -> None:
    drawn = axes.frame(
        axes.x_scale(0.0, 10.0),
        axes.y_scale(0.0, 1.0),
        x_label="seconds",
        y_label="share",
        x_text=axes.number,
        y_text=axes.percent,
    )
    assert texts(drawn, "axis-name") == ["seconds", "share"]
    assert texts(drawn, "tick-x") == ["0", "2", "4", "6", "8", "10"]
    assert texts(drawn, "tick-y") == ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]
    assert len(find(drawn, "grid")) == 6


def test_milliseconds_choose_their_unit() -> None:
    values = (0.0, 0.05, 0.5, 1.0, 250.0, 2000.0, -0.1)
    expected = ["0", "50 µs", "500 µs", "1 ms", "250 ms", "2 s", "-100 µs"]
    assert [axes.milliseconds(value) for value in values] == expected


def test_large_numbers_have_their_thousands_marked() -> None:
    assert [axes.number(value) for value in (0.5, 999.0, 25000.0)] == ["0.5", "999", "25,000"]
