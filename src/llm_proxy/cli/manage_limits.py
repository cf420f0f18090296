"""Options of `manage` for the limits that tokens and projects have of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from llm_proxy.manage.objects import Project, Token

_PANEL = "Limits"

RateLimit = Annotated[
    str | None,
    typer.Option(
        "--rate-limit",
        metavar="60/min",
        rich_help_panel=_PANEL,
        help="Requests in a time (s, min, h, d), or unlimited; default: the configuration's.",
    ),
]
RateBurst = Annotated[
    str | None,
    typer.Option(
        "--rate-burst",
        metavar="N",
        rich_help_panel=_PANEL,
        help="Requests that may come at once; default: as many as the rate's.",
    ),
]
MaxConcurrent = Annotated[
    str | None,
    typer.Option(
        "--max-concurrent",
        metavar="N",
        rich_help_panel=_PANEL,
        help="Requests that may run at once, 0: unlimited; default: the configuration's.",
    ),
]
CancelRunning = Annotated[
    bool, typer.Option("--cancel-running", help="End the requests that run, too.")
]


def limit_fields(
    rate_limit: str | None, rate_burst: str | None, max_concurrent: str | None
) -> dict[str, Any]:
    """Those that were given, as the API takes them."""
    fields: dict[str, Any] = {}
    if rate_limit is not None:
        fields["rate_limit"] = None if rate_limit == "default" else rate_limit
    for field, text in (("rate_burst", rate_burst), ("max_concurrent", max_concurrent)):
        if text is not None:
            fields[field] = None if text == "default" else _whole(field, text)
    return fields


def _whole(field: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        option = f"--{field.replace('_', '-')}"
        raise typer.BadParameter(f"{option} must be a whole number or `default`, not {text!r}")
    return int(text)


def shown_limits(limited: Token | Project) -> list[tuple[str, object]]:
    """Lines of its details."""
    rate = limited.rate_limit or "default"
    if limited.rate_burst is not None:
        rate += f", burst {limited.rate_burst}"
    concurrent: object = limited.max_concurrent
    if limited.max_concurrent is None:
        concurrent = "default"
    return [("Rate limit", rate), ("Concurrent", concurrent or "unlimited")]
