from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from llm_proxy.manage.objects import NewToken, Token

NOW = datetime(2030, 1, 1, tzinfo=UTC)
EARLIER, LATER = NOW - timedelta(seconds=1), NOW + timedelta(seconds=1)
ANSWER: dict[str, Any] = {
    "id": "t",
    "name": "",
    "token": "sk-…",
    "project_id": "p",
    "expires_at": None,
    "is_active": True,
    "request_count": 3,
    "max_requests": None,
    "created_at": "2029-01-01T00:00:00Z",
    "last_used_at": None,
    "cache_hit_count": 0,
}


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({}, "active"),
        ({"is_active": False, "expires_at": NOW}, "revoked"),
        ({"is_active": False, "expires_at": NOW, "deactivated_at": EARLIER}, "revoked"),
        ({"is_active": False, "expires_at": EARLIER, "deactivated_at": EARLIER}, "expired"),
        ({"idle_expires_at": NOW, "expires_at": LATER}, "expired"),
        ({"idle_expires_at": LATER}, "active"),
        ({"not_before": LATER}, "pending"),
        ({"not_before": NOW}, "active"),
        ({"expires_at": NOW, "max_requests": 3}, "expired"),
        ({"expires_at": NOW + timedelta(seconds=1)}, "active"),
        ({"max_requests": 3}, "used up"),
        ({"max_requests": 4}, "active"),
    ],
)
def test_one_word_says_whether_a_token_works(fields: dict[str, Any], state: str) -> None:
    assert msgspec.convert({**ANSWER, **fields}, Token).state(NOW) == state


def test_fields_of_a_newer_server_are_passed_over() -> None:
    assert msgspec.convert({**ANSWER, "colour": "red"}, Token).id == "t"


def test_a_new_token_does_not_show_itself_by_accident() -> None:
    new = NewToken(id="t", token="sk-canary", project_id="p", expires_at=None, max_requests=None)
    assert "canary" not in f"{new} {new!r}"
    assert b"previous_valid_until" not in msgspec.json.encode(new)
