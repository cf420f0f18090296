"""Options of `manage token` that say when and for what a token works, and what the API is sent."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

PANEL = "Scope"

Name = Annotated[str | None, typer.Option("--name", metavar="TEXT", help="To recognise it by.")]
MaxRequests = Annotated[
    int | None,
    typer.Option(
        "--max-requests", metavar="N", min=0, help="Requests it is good for in all; 0: no cap."
    ),
]
ExpiresAt = Annotated[
    str | None,
    typer.Option("--expires-at", metavar="TIME|never", help="RFC 3339, like 2030-01-31T12:00:00Z."),
]
NotBefore = Annotated[
    str | None,
    typer.Option(
        "--not-before", metavar="TIME|none", help="It doesn't work before; RFC 3339 as well."
    ),
]
IdleTimeout = Annotated[
    str | None,
    typer.Option(
        "--idle-timeout",
        metavar="30d|12h|none",
        help="It expires when unused for so long; a bare number is minutes.",
    ),
]
AllowApi = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-api",
        metavar="NAME|any",
        rich_help_panel=PANEL,
        help="For this api only; like all --allow options it may be repeated, and is lifted "
        "by the word any.",
    ),
]
AllowEndpoint = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-endpoint",
        metavar="PATH|any",
        rich_help_panel=PANEL,
        help="For this path only, like /v1/models or /v1/files/*.",
    ),
]
AllowMethod = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-method",
        metavar="METHOD|any",
        rich_help_panel=PANEL,
        help="For this method only, like GET.",
    ),
]
AllowModel = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-model",
        metavar="PATTERN|any",
        rich_help_panel=PANEL,
        help="For these models only, like gpt-4*.",
    ),
]
AllowNetwork = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-network",
        metavar="CIDR|any",
        rich_help_panel=PANEL,
        help="From these addresses only, like 10.0.0.0/8; unix: from the Unix socket.",
    ),
]
_ANY = "any"
_DEFAULT_MINUTES = 24 * 60


def seconds(text: str, option: str) -> float:
    from llm_proxy.quantities import parse_duration

    try:
        return parse_duration(text, bare_unit="m")
    except ValueError as exc:
        raise typer.BadParameter(f"{option}: {exc}; a bare number is minutes") from exc


def new_expiry(duration: str | None, expires_at: str | None) -> dict[str, Any]:
    """For a token that is made now."""
    _refuse_both(duration, expires_at)
    if expires_at is not None:
        return {"expires_at": _moment("--expires-at", expires_at, none="never")}
    if duration is None:
        return {"duration_minutes": _DEFAULT_MINUTES}
    return {"duration_minutes": _minutes(duration, "--duration")}


def changed_expiry(duration: str | None, expires_at: str | None) -> dict[str, Any]:
    _refuse_both(duration, expires_at)
    if duration is not None:
        lifetime = timedelta(minutes=_minutes(duration, "--duration"))
        return {"expires_at": datetime.now(UTC) + lifetime}
    if expires_at is not None:
        return {"expires_at": _moment("--expires-at", expires_at, none="never")}
    return {}


def validity_fields(not_before: str | None, idle_timeout: str | None) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if not_before is not None:
        fields["not_before"] = _moment("--not-before", not_before, none="none")
    if idle_timeout == "none":
        fields["idle_timeout_seconds"] = None
    elif idle_timeout is not None:
        fields["idle_timeout_seconds"] = round(seconds(idle_timeout, "--idle-timeout"))
    return fields


def scope_fields(
    *,
    apis: list[str] | None,
    endpoints: list[str] | None,
    methods: list[str] | None,
    models: list[str] | None,
    networks: list[str] | None,
) -> dict[str, Any]:
    given = {
        "apis": apis,
        "endpoints": endpoints,
        "methods": methods,
        "models": models,
        "networks": networks,
    }
    scope = {name: _entries(name, entries) for name, entries in given.items() if entries}
    return {"scope": scope} if scope else {}


def _entries(name: str, entries: list[str]) -> list[str]:
    if _ANY not in entries:
        return entries
    if len(set(entries)) > 1:
        option = f"--allow-{name.removesuffix('s')}"
        raise typer.BadParameter(f"{option} {_ANY} lifts the restriction; name nothing besides")
    return []


def _refuse_both(duration: str | None, expires_at: str | None) -> None:
    if duration is not None and expires_at is not None:
        raise typer.BadParameter("name either --duration or --expires-at")


def _minutes(text: str, option: str) -> int:
    minutes = seconds(text, option) / 60
    if minutes < 1 or minutes != int(minutes):
        raise typer.BadParameter(
            f"{option} must be a whole number of minutes, at least 1, not {text!r}"
        )
    return int(minutes)


def _moment(option: str, text: str, *, none: str) -> datetime | None:
    if text == none:
        return None
    with contextlib.suppress(ValueError):
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment
    raise typer.BadParameter(
        f"{option} must be `{none}` or a time with its zone, like 2030-01-31T12:00:00Z, "
        f"not {text!r}"
    )
