from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import typer

from llm_proxy.cli.manage_token_fields import (
    changed_expiry,
    new_expiry,
    scope_fields,
    validity_fields,
)

MOMENT = datetime(2030, 1, 31, 12, tzinfo=UTC)


def scope(**lists: list[str] | None) -> dict[str, Any]:
    names = ("apis", "endpoints", "methods", "models", "networks")
    return scope_fields(**{**dict.fromkeys(names), **lists})


@pytest.mark.parametrize(
    ("duration", "expires_at", "expected"),
    [
        (None, None, {"duration_minutes": 1440}),
        ("7d", None, {"duration_minutes": 10_080}),
        ("90", None, {"duration_minutes": 90}),
        (None, "2030-01-31T12:00:00Z", {"expires_at": MOMENT}),
        (None, "never", {"expires_at": None}),
    ],
)
def test_a_new_token_ends_once(
    duration: str | None, expires_at: str | None, expected: dict[str, Any]
) -> None:
    assert new_expiry(duration, expires_at) == expected


def test_an_end_changes_only_when_it_is_named() -> None:
    assert changed_expiry(None, None) == {}
    assert changed_expiry(None, "never") == {"expires_at": None}
    end = changed_expiry("1h", None)["expires_at"]
    assert timedelta(minutes=59) < end - datetime.now(UTC) <= timedelta(hours=1)


@pytest.mark.parametrize("expiry", [new_expiry, changed_expiry])
def test_two_ends_are_wrong_usage(expiry: Any) -> None:
    with pytest.raises(typer.BadParameter, match="either --duration or --expires-at"):
        expiry("1h", "never")


def test_validity_is_sent_as_it_was_given() -> None:
    assert validity_fields(None, None) == {}
    assert validity_fields("2030-01-31T13:00:00+01:00", "30d") == {
        "not_before": MOMENT,
        "idle_timeout_seconds": 30 * 86_400,
    }
    lifted = {"not_before": None, "idle_timeout_seconds": None}
    assert validity_fields("none", "none") == lifted
    assert validity_fields(None, "5") == {"idle_timeout_seconds": 300}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tomorrow", None), "--not-before must be `none` or a time"),
        (("2030-01-31", None), "--not-before must be `none` or a time"),
        ((None, "long"), "--idle-timeout: 'long' isn't a duration"),
    ],
)
def test_wrong_times_are_wrong_usage(arguments: tuple[str, str], message: str) -> None:
    with pytest.raises(typer.BadParameter, match=message):
        validity_fields(*arguments)


def test_a_scope_holds_the_lists_that_were_named() -> None:
    assert scope() == scope(apis=[]) == {}
    assert scope(models=["gpt-4*", "o3"]) == {"scope": {"models": ["gpt-4*", "o3"]}}
    lifted = scope(apis=["openai"], networks=["any"])
    assert lifted == {"scope": {"apis": ["openai"], "networks": []}}


def test_any_stands_alone() -> None:
    with pytest.raises(typer.BadParameter, match="--allow-network any lifts the restriction"):
        scope(networks=["any", "10.0.0.0/8"])
