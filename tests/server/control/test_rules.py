from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from llm_proxy.errors import Refusal
from llm_proxy.secrets import Secret
from llm_proxy.server.control import rules

HOURS = timedelta(hours=1)


@pytest.mark.parametrize(
    ("rule", "value", "expected"),
    [
        (rules.project_name, "  Käse 🧀 ", "Käse 🧀"),
        (rules.project_name, "x" * 200, "x" * 200),
        (rules.token_name, None, ""),
        (rules.token_name, " ", ""),
        (rules.description, None, ""),
        (rules.description, "two\nlines", "two\nlines"),
        (rules.metadata, None, {}),
        (rules.metadata, {"a": [1, {}]}, {"a": [1, {}]}),
        (rules.duration_minutes, 1, 1),
        (rules.duration_minutes, 525_600, 525_600),
        (rules.grace_seconds, 0, 0),
        (rules.max_requests, None, None),
        (rules.max_requests, 0, None),
        (rules.max_requests, 2**53 - 1, 2**53 - 1),
        (rules.expires_at, None, None),
        (
            rules.expires_at,
            datetime(2030, 1, 1, 1, tzinfo=timezone(2 * HOURS)),
            datetime(2029, 12, 31, 23, tzinfo=UTC),
        ),
        (rules.digest, "AB" * 32, b"\xab" * 32),
        (rules.not_before, None, None),
        (rules.not_before, datetime(8999, 1, 1, tzinfo=UTC), datetime(8999, 1, 1, tzinfo=UTC)),
        (rules.idle_timeout_seconds, None, None),
        (rules.idle_timeout_seconds, 60, 60),
        (rules.rate_limit, "90 / Minute", "90/min"),
        (rules.rate_limit, "unlimited", "unlimited"),
        (rules.rate_burst, None, None),
        (rules.rate_burst, 1, 1),
        (rules.max_concurrent, None, None),
        (rules.max_concurrent, 0, 0),
    ],
)
def test_what_may_be(rule: Callable[[Any], object], value: object, expected: object) -> None:
    assert rule(value) == expected


@pytest.mark.parametrize(
    ("rule", "value", "field"),
    [
        (rules.not_before, datetime(2030, 1, 1), "not_before"),
        (rules.not_before, datetime(9000, 1, 1, tzinfo=UTC), "not_before"),
        (rules.idle_timeout_seconds, 59, "idle_timeout_seconds"),
        (rules.idle_timeout_seconds, 10**9, "idle_timeout_seconds"),
        (rules.rate_limit, "", "rate_limit"),
        (rules.rate_limit, "1/week", "rate_limit"),
        (rules.rate_burst, 0, "rate_burst"),
        (rules.max_concurrent, -1, "max_concurrent"),
        (rules.project_name, "", "name"),
        (rules.project_name, " \t", "name"),
        (rules.project_name, "x" * 201, "name"),
        (rules.project_name, "a\x1b[2Jb", "name"),
        (rules.project_name, "a\x00b", "name"),
        (rules.token_name, "a\nb", "name"),
        (rules.description, "x" * 2001, "description"),
        (rules.metadata, {"a": "x" * 16_384}, "metadata"),
        (rules.duration_minutes, 0, "duration_minutes"),
        (rules.duration_minutes, -5, "duration_minutes"),
        (rules.duration_minutes, 525_601, "duration_minutes"),
        (rules.duration_minutes, 10**400, "duration_minutes"),
        (rules.grace_seconds, -1, "grace_seconds"),
        (rules.max_requests, -1, "max_requests"),
        (rules.max_requests, 2**53, "max_requests"),
        (rules.expires_at, datetime(2030, 1, 1), "expires_at"),
        (rules.expires_at, datetime(9999, 12, 31, 23, tzinfo=timezone(-HOURS)), "expires_at"),
        (rules.digest, "ab" * 31, "digest"),
        (rules.digest, "zz" * 32, "digest"),
        (rules.digest, " ab" * 32, "digest"),
    ],
)
def test_what_may_not_be_names_the_field(
    rule: Callable[[Any], object], value: object, field: str
) -> None:
    with pytest.raises(Refusal) as caught:
        rule(value)
    assert caught.value.code == "invalid_request"
    assert caught.value.details == {"field": field}
    assert caught.value.message.startswith(field)
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "must not be empty"),
        ("sk-canary…1234", "looks masked"),
        ("sk-canary...1234", "looks masked"),
        ("sk-canary****", "looks masked"),
        ("sk-canary 1", "visible ASCII"),
        ("sk-canary\r\nX-Evil: 1", "visible ASCII"),
        ("sk-canary\n", "visible ASCII"),
        ("sk-canary\x00", "visible ASCII"),
        ("sk-canaryü", "visible ASCII"),
        ("sk-canary" + "x" * 4096, "at most 4096"),
    ],
)
def test_a_key_that_could_not_be_sent_is_refused_unseen(key: str, reason: str) -> None:
    with pytest.raises(Refusal, match=reason) as caught:
        rules.upstream_key("api_key", key)
    assert "canary" not in str(caught.value)


def test_any_other_key_is_taken_as_it_is() -> None:
    key = "sk-proj-Aa0_-.~+/=:!"
    assert rules.upstream_key("api_key", key) == Secret(key)


def test_an_api_must_be_configured() -> None:
    assert rules.configured_api("api", "openai", ("openai", "anthropic")) == "openai"
    with pytest.raises(Refusal, match="names 'opnai', but the configured apis are: openai"):
        rules.configured_api("api", "opnai", ("openai",))


def test_a_token_is_made_with_an_end_to_come() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    assert rules.future_expires_at(None, now) is None
    assert rules.future_expires_at(now + HOURS, now) == now + HOURS
    with pytest.raises(Refusal, match="expires_at must lie in the future, not at 2030-01-01T00"):
        rules.future_expires_at(now, now)


def test_a_token_begins_before_it_ends() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    rules.check_order(now, now + HOURS)
    rules.check_order(None, now)
    rules.check_order(now, None)
    with pytest.raises(Refusal, match="not_before must lie before expires_at"):
        rules.check_order(now, now)
