from __future__ import annotations

from typing import Any

import pytest

from llm_proxy.errors import Refusal
from llm_proxy.grants import TokenGrant
from llm_proxy.server.gateway.validity import check_times, format_time, is_idle

NOW = 1_900_000_000.0


def grant(**fields: Any) -> TokenGrant:
    values: dict[str, Any] = {
        "token_id": "t",
        "project_id": "p",
        "is_active": True,
        "project_is_active": True,
        "expires_at": None,
        "max_requests": None,
        "last_used_at": NOW - 100,
        "upstream_keys": {},
    }
    return TokenGrant(**{**values, **fields})


def refused(checked: TokenGrant, last_used_at: float = 0.0) -> Refusal:
    with pytest.raises(Refusal) as caught:
        check_times(checked, NOW, last_used_at)
    assert caught.value.status_code == 401
    return caught.value


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"not_before": NOW, "expires_at": NOW + 0.001},
        {"idle_timeout": 100.001},
    ],
)
def test_a_token_works_within_its_time(fields: dict[str, Any]) -> None:
    check_times(grant(**fields), NOW, 0.0)


def test_a_token_does_not_work_before_its_time() -> None:
    refusal = refused(grant(not_before=NOW + 0.001, expires_at=NOW + 9))
    assert refusal.code == "token_not_yet_valid"
    assert refusal.details == {"not_before": format_time(NOW)}


def test_a_token_does_not_work_after_its_time() -> None:
    refusal = refused(grant(expires_at=NOW))
    assert refusal.code == "token_expired"
    assert refusal.details == {"expires_at": "2030-03-17T17:46:40Z"}


def test_a_token_that_was_not_used_for_long_has_expired() -> None:
    refusal = refused(grant(idle_timeout=60))
    assert refusal.code == "token_expired"
    assert "not used for 1m;" in refusal.message
    assert refusal.details == {"expires_at": format_time(NOW - 40), "idle_timeout_seconds": 60}


def test_each_use_that_is_known_counts() -> None:
    check_times(grant(idle_timeout=60), NOW, NOW - 59)
    assert is_idle(grant(idle_timeout=60), NOW, NOW - 60)
    assert not is_idle(grant(idle_timeout=60, last_used_at=NOW - 59), NOW, NOW - 500)
    assert not is_idle(grant(), NOW, 0.0)


def test_the_time_before_it_is_valid_does_not_count_as_idle() -> None:
    assert not is_idle(grant(idle_timeout=60, not_before=NOW - 59), NOW, 0.0)
    assert is_idle(grant(idle_timeout=60, not_before=NOW - 60), NOW, 0.0)
