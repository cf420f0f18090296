from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from llm_proxy.cli.manage_token_shown import show, show_list, show_new
from llm_proxy.manage.objects import NewToken, Token


def token(**fields: Any) -> Token:
    answer: dict[str, Any] = {
        "id": "e0a84d79-c005-48d6-a017-8d08d99372a3",
        "name": "ci",
        "token": "sk-Abcd…wxyz",
        "project_id": "p",
        "expires_at": None,
        "is_active": True,
        "request_count": 3,
        "max_requests": None,
        "created_at": "2029-01-01T00:00:00Z",
        "last_used_at": None,
        "cache_hit_count": 0,
    }
    return msgspec.convert({**answer, **fields}, Token)


def test_details_hold_all_that_narrows_it(capsys: pytest.CaptureFixture[str]) -> None:
    narrowed = token(
        not_before="2100-01-01T00:00:00Z",
        idle_timeout_seconds=5400,
        idle_expires_at="2100-01-01T01:30:00Z",
        scope={"apis": ["openai"], "models": ["gpt-4*", "o3"]},
        rate_limit="60/min",
        rate_burst=5,
        max_concurrent=2,
    )
    show(narrowed, as_json=False)
    lines = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())
    shown = {name: value.strip() for name, value in lines.items()}
    assert {
        "State": "pending",
        "Not before": "2100-01-01 00:00Z",
        "Idle limit": "1h30m, until 2100-01-01 01:30Z if unused",
        "Rate limit": "60/min, burst 5",
        "Concurrent": "2",
        "Apis": "openai",
        "Models": "gpt-4*, o3",
    }.items() <= shown.items()
    assert "Networks" not in shown


def test_details_say_what_is_not_narrowed(capsys: pytest.CaptureFixture[str]) -> None:
    show(token(), as_json=False)
    out = capsys.readouterr().out
    assert "Scope:        everything" in out
    assert "Idle limit:   -" in out
    assert "Rate limit:   default" in out


def test_json_is_the_token_as_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    narrowed = token(scope={"models": ["o3"]})
    show(narrowed, as_json=True)
    assert msgspec.json.decode(capsys.readouterr().out, type=Token) == narrowed


@pytest.mark.parametrize(
    ("left", "shown"),
    [
        (timedelta(days=9, hours=1), "9d"),
        (timedelta(hours=47, minutes=30), "47h"),
        (timedelta(minutes=90, seconds=30), "90m"),
        (timedelta(seconds=-1), "-"),
    ],
)
def test_the_list_says_how_long_each_has(
    capsys: pytest.CaptureFixture[str], left: timedelta, shown: str
) -> None:
    end = datetime.now(UTC) + left
    show_list([token(idle_expires_at=end, max_requests=9)])
    header, line = capsys.readouterr().out.splitlines()
    assert line.split()[-2:] == ["3/9", shown]
    assert len(line) <= 80


def test_a_new_token_is_alone_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    new = NewToken(
        id="t",
        token="sk-canary",
        project_id="p",
        expires_at=datetime(2030, 1, 1, tzinfo=UTC),
        max_requests=5,
    )
    show_new(new, as_json=False)
    printed = capsys.readouterr()
    assert printed.out == "sk-canary\n"
    assert "expires 2030-01-01 00:00 UTC, 5 requests" in printed.err
