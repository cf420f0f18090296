"""How `manage token` shows tokens."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from llm_proxy.cli.manage_access import print_json, tell
from llm_proxy.cli.manage_limits import shown_limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llm_proxy.manage.objects import NewToken, Token


def show_list(tokens: Sequence[Token]) -> None:
    from llm_proxy.manage.tables import print_table

    now = datetime.now(UTC)
    rows = [
        (t.id, t.name or t.token, t.state(now), _used(t), _expiry(t.ends_at, now)) for t in tokens
    ]
    print_table(("Id", "Name", "State", "Used", "Expires"), rows)


def show(token: Token, *, as_json: bool) -> None:
    if as_json:
        print_json(token)
        return
    from llm_proxy.manage.tables import print_details

    print_details(
        [
            ("Id", token.id),
            ("Name", token.name),
            ("Token", token.token),
            ("Project", token.project_id),
            ("State", token.state(datetime.now(UTC))),
            ("Not before", token.not_before),
            ("Expires", "never" if token.expires_at is None else token.expires_at),
            ("Idle limit", _idle(token)),
            ("Requests", _used(token)),
            *shown_limits(token),
            *_shown_scope(token),
            ("Cache hits", token.cache_hit_count),
            ("Created", token.created_at),
            ("Last used", token.last_used_at),
            ("Deactivated", token.deactivated_at),
        ]
    )


def show_new(new: NewToken, *, as_json: bool) -> None:
    """The token alone on stdout, so that a script can take it from there."""
    if as_json:
        print_json(new)
        return
    end = "never expires"
    if new.expires_at is not None:
        end = f"expires {new.expires_at:%Y-%m-%d %H:%M} UTC"
    cap = "no cap" if new.max_requests is None else f"{new.max_requests} requests"
    tell(f"Token {new.id} of project {new.project_id}: {end}, {cap}.")
    tell("Keep it now: it is not shown again.")
    print(new.token)


def _used(token: Token) -> str:
    cap = "" if token.max_requests is None else f"/{token.max_requests}"
    return f"{token.request_count}{cap}"


def _expiry(at: datetime | None, now: datetime) -> str:
    """How long it has, roughly: `6d`, `23h`, `5m`."""
    if at is None:
        return "never"
    left = int((at - now).total_seconds())
    if left <= 0:
        return "-"
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if left >= 2 * length:
            return f"{left // length}{unit}"
    return f"{left}s"


def _idle(token: Token) -> str | None:
    from llm_proxy.quantities import format_duration

    if token.idle_timeout_seconds is None:
        return None
    end = token.idle_expires_at
    until = "" if end is None else f", until {end:%Y-%m-%d %H:%M}Z if unused"
    return f"{format_duration(token.idle_timeout_seconds)}{until}"


def _shown_scope(token: Token) -> list[tuple[str, object]]:
    scope = token.scope
    if scope is None:
        return [("Scope", "everything")]
    lists = [
        ("Apis", scope.apis),
        ("Endpoints", scope.endpoints),
        ("Methods", scope.methods),
        ("Models", scope.models),
        ("Networks", scope.networks),
    ]
    return [(name, ", ".join(entries)) for name, entries in lists if entries]
