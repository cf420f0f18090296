from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.limits import LimitOverride, Limits, RateLimit, format_rate, parse_rate


@pytest.mark.parametrize(
    ("text", "requests", "window_s"),
    [
        ("10/s", 10, 1),
        ("60/min", 60, 60),
        ("60/m", 60, 60),
        ("60 / minute", 60, 60),
        ("1000/h", 1000, 3600),
        ("5000/D", 5000, 86400),
    ],
)
def test_rate_is_requests_in_a_window(text: str, requests: int, window_s: int) -> None:
    assert parse_rate(text) == RateLimit(requests, window_s, burst=requests)


@pytest.mark.parametrize("text", ["", "60", "60/", "0/min", "-1/s", "1.5/s", "1/year", "٣/s"])
def test_other_text_is_refused_with_the_rule(text: str) -> None:
    with pytest.raises(ValueError, match="60/min"):
        parse_rate(text)


@given(st.integers(1, 999_999_999), st.sampled_from([1, 60, 3600, 86400]))
def test_what_is_written_is_read_again(requests: int, window_s: int) -> None:
    rate = RateLimit(requests, window_s, burst=requests)
    assert parse_rate(format_rate(rate)) == rate


def test_unlimited_is_no_rate() -> None:
    assert parse_rate(" Unlimited ") is None
    assert format_rate(None) == "unlimited"


def test_override_replaces_only_what_it_names() -> None:
    default = Limits(rate=RateLimit(60, 60, burst=60), max_concurrent=5)
    assert LimitOverride().applied_to(default) == default
    assert LimitOverride(rate_burst=3).applied_to(default).rate == RateLimit(60, 60, burst=3)
    assert LimitOverride(max_concurrent=0).applied_to(default) == Limits(rate=default.rate)
    unlimited = LimitOverride(rate_limit="unlimited", rate_burst=3, max_concurrent=0)
    assert not unlimited.applied_to(default)
    own = LimitOverride(rate_limit="5/s").applied_to(default)
    assert own == Limits(rate=RateLimit(5, 1, burst=5), max_concurrent=5)


def test_even_requests_come_an_interval_apart() -> None:
    assert RateLimit(120, 60, burst=1).interval_s == 0.5
