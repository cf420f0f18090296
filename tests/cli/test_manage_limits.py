from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import typer

from llm_proxy.cli.manage_limits import limit_fields, shown_limits
from llm_proxy.manage.objects import Project


def test_only_what_was_given_is_sent() -> None:
    assert limit_fields(None, None, None) == {}
    assert limit_fields("60/min", "5", "0") == {
        "rate_limit": "60/min",
        "rate_burst": 5,
        "max_concurrent": 0,
    }
    reset = {"rate_limit": None, "rate_burst": None, "max_concurrent": None}
    assert limit_fields("default", "default", "default") == reset


@pytest.mark.parametrize("text", ["-1", "1.5", "many", "", "9" * 19, "٣"])
def test_what_is_no_number_is_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="--rate-burst must be a whole number"):
        limit_fields(None, text, None)
    with pytest.raises(typer.BadParameter, match="--max-concurrent must be a whole number"):
        limit_fields(None, None, text)


@pytest.mark.parametrize(
    ("fields", "rate", "concurrent"),
    [
        ({}, "default", "default"),
        ({"rate_limit": "60/min", "max_concurrent": 5}, "60/min", 5),
        ({"rate_burst": 9, "max_concurrent": 0}, "default, burst 9", "unlimited"),
    ],
)
def test_limits_are_shown(fields: dict[str, Any], rate: str, concurrent: object) -> None:
    now = datetime.now(UTC)
    project = Project(
        id="p",
        name="p",
        api_key=None,
        description="",
        metadata={},
        is_active=True,
        deactivated_at=None,
        created_at=now,
        updated_at=now,
        **fields,
    )
    assert shown_limits(project) == [("Rate limit", rate), ("Concurrent", concurrent)]
