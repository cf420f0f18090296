from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.benchmark.precision import (
    digits,
    format_change,
    format_met,
    format_ms,
    format_number,
    format_rate,
    format_share,
    round_to,
    rounded,
)
from llm_proxy.benchmark.report import Spread


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (None, "-"),
        (0.0, "0 ms"),
        (0.0003, "0.300 µs"),
        (0.0123, "12.3 µs"),
        (0.99949, "999 µs"),
        (0.9996, "1.00 ms"),
        (12.3456, "12.3 ms"),
        (999.6, "1.00 s"),
        (123_456.0, "123 s"),
        (-0.25, "-250 µs"),
    ],
)
def test_times_have_three_digits_in_the_unit_that_reads_best(ms: float | None, text: str) -> None:
    assert format_ms(ms) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (12.345, 12.346, "12.3 ms"),
        (12.1, 12.6, "12.3 ms"),
        (10.0, 15.0, "12 ms"),
        (0.0, 40.0, "10 ms"),
        (0.0, 400.0, "10 ms"),
        (12.3, 12.3, "12.3 ms"),
    ],
)
def test_a_wide_spread_takes_digits_away(low: float, high: float, text: str) -> None:
    assert format_ms(12.3456, Spread(low=low, high=high)) == text


def test_rates_have_thousands_apart() -> None:
    assert format_rate(25_431.7) == "25,400"
    assert format_rate(25_431.7, Spread(low=20_000, high=30_000)) == "25,000"
    assert format_rate(3.14159) == "3.14"
    assert format_rate(None) == "-"


def test_a_sign_is_shown_when_asked_for() -> None:
    assert format_ms(5.0, signed=True) == "+5.00 ms"
    assert format_ms(0.0, signed=True) == "0 ms"
    assert format_number(-0.0, signed=True) == "0"


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.125, "+12.5 %"),
        (-0.2, "-20 %"),
        (0.0, "0 %"),
        (-0.04857, "-4.86 %"),
        (191.2, "+19,100 %"),
    ],
)
def test_changes_are_percents_however_large(share: float, text: str) -> None:
    assert format_change(share) == text


def test_shares_are_percents() -> None:
    assert [format_share(share) for share in (0, 0.0025, 0.1234, 1)] == [
        *("0 %", "0.25 %", "12.3 %", "100 %")
    ]


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (1.0, "100 %"),
        (0.999996, "99.9996 %"),
        (0.99957, "99.957 %"),
        (0.97314, "97.3 %"),
        (0.6, "60 %"),
        (0.31234, "31 %"),
        (0.000512, "0.051 %"),
        (0.0, "0 %"),
    ],
)
def test_a_share_that_should_be_all_is_never_rounded_to_it(share: float, text: str) -> None:
    assert format_met(share) == text


def test_reports_keep_four_digits() -> None:
    assert rounded(123_456.0) == 123_500
    assert rounded(0.00123456) == 0.001235
    assert rounded(0.0) == 0.0
    assert rounded(math.inf) == math.inf


@given(st.floats(1e-6, 1e9), st.floats(1e-6, 1e9))
def test_there_are_always_one_to_three_digits(value: float, width: float) -> None:
    assert 1 <= digits(value, Spread(low=value, high=value + width)) <= 3


@given(st.floats(1e-4, 3_600_000))
def test_a_shown_time_is_the_time(ms: float) -> None:
    number, unit = format_ms(ms).split()
    shown = float(number.replace(",", "")) * {"µs": 0.001, "ms": 1, "s": 1000}[unit]
    assert shown == pytest.approx(ms, rel=0.0051)


@given(st.floats(1e-6, 1e9), st.integers(1, 4))
def test_rounding_moves_a_value_by_half_a_digit_at_most(value: float, count: int) -> None:
    assert round_to(value, count) == pytest.approx(value, rel=0.51 * 10 ** (1 - count))
