from __future__ import annotations

import pytest

from llm_proxy.gcra import SECOND
from llm_proxy.limits import RateLimit
from llm_proxy.server.gateway.limit_refusals import (
    concurrency_refusal,
    format_wait,
    rate_refusal,
    unavailable_refusal,
)
from llm_proxy.server.gateway.subjects import Subject
from tests.server.gateway.limits import at_once, per_minute


def test_rate_refusal_says_which_how_much_and_when() -> None:
    rate = RateLimit(60, 60, 10)
    refusal = rate_refusal(Subject("token:t", "token", per_minute(60)), rate, 11 * SECOND + 1)
    assert refusal.status_code == 429
    assert refusal.headers == {
        "Retry-After": "12",
        "RateLimit-Policy": '"token";q=60;w=60',
        "RateLimit": '"token";r=0;t=12',
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "12s",
    }
    assert "this token" in refusal.message
    assert "60/min" in refusal.message
    assert refusal.details == {
        "limit": "token",
        "rate_limit": "60/min",
        "rate_burst": 10,
        "retry_after_seconds": 12,
    }


def test_wait_of_less_than_a_second_is_told_as_one() -> None:
    subject = Subject("total", "total", per_minute(60))
    assert rate_refusal(subject, RateLimit(60, 60, 60), 1).headers["Retry-After"] == "1"


@pytest.mark.parametrize("limit", ["client_ip", "project", "token"])
def test_concurrency_refusal_names_limit_and_number(limit: str) -> None:
    refusal = concurrency_refusal(Subject(f"{limit}:x", limit, at_once(3)))
    assert refusal.code == "concurrency_limited"
    assert refusal.details == {"limit": limit, "max_concurrent": 3}
    assert "3" in refusal.message


def test_unknown_is_neither_allowed_nor_blamed_on_the_client() -> None:
    refusal = unavailable_refusal()
    assert (refusal.status_code, refusal.headers["Retry-After"]) == (503, "1")


@pytest.mark.parametrize(
    ("seconds", "written"), [(1, "1s"), (60, "1m0s"), (360, "6m0s"), (3661, "1h1m1s")]
)
def test_waits_are_written_as_openai_does(seconds: int, written: str) -> None:
    assert format_wait(seconds) == written
