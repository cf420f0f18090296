"""What the fields of projects and tokens may hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from llm_proxy.limits import MAX_BURST, MAX_CONCURRENT, format_rate, parse_rate
from llm_proxy.secrets import Secret
from llm_proxy.server.control.answers import invalid, shortened

_LONGEST_NAME = 200  # characters
_LONGEST_DESCRIPTION = 2000  # characters
_LARGEST_METADATA = 16 * 1024  # bytes of JSON
_LONGEST_KEY = 4096  # characters: it has to fit into a request's head
_MOST_REQUESTS = 2**53 - 1  # exact in every JSON parser
LONGEST_DURATION = 525_600  # minutes: a year
_LEAST_IDLE = 60  # seconds
_LONGEST_IDLE = 10 * 365 * 86_400  # seconds
_LAST_YEAR = 9000  # idle times are added to it
_LONGEST_GRACE = LONGEST_DURATION * 60  # seconds


def project_name(name: str) -> str:
    name = name.strip()
    if not name:
        raise invalid("name", "must not be empty")
    return _text("name", name, _LONGEST_NAME)


def token_name(name: str | None) -> str:
    return _text("name", (name or "").strip(), _LONGEST_NAME)


def description(text: str | None) -> str:
    text = text or ""
    if len(text) > _LONGEST_DESCRIPTION:
        raise invalid("description", f"must have at most {_LONGEST_DESCRIPTION} characters")
    if "\0" in text:  # which not every database takes
        raise invalid("description", "must not contain a NUL character")
    return text


def metadata(values: Mapping[str, Any] | None) -> Mapping[str, Any]:
    values = values or {}
    if len(msgspec.json.encode(values)) > _LARGEST_METADATA:
        raise invalid("metadata", f"must have at most {_LARGEST_METADATA} bytes of JSON")
    return values


def upstream_key(field: str, key: str) -> Secret:
    """A key travels in a header, so nothing that could end one may be in it."""
    if not key:
        raise invalid(field, "must not be empty")
    if "…" in key or "..." in key or "****" in key:
        raise invalid(field, "looks masked; send the whole key")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise invalid(field, "must be visible ASCII characters without spaces or line breaks")
    if len(key) > _LONGEST_KEY:
        raise invalid(field, f"must have at most {_LONGEST_KEY} characters")
    return Secret(key)


def configured_api(field: str, name: str, apis: Sequence[str]) -> str:
    if name not in apis:
        shown = repr(shortened(name))
        raise invalid(field, f"names {shown}, but the configured apis are: {', '.join(apis)}")
    return name


def duration_minutes(minutes: int) -> int:
    return _within("duration_minutes", minutes, 1, LONGEST_DURATION)


def grace_seconds(seconds: int) -> int:
    return _within("grace_seconds", seconds, 0, _LONGEST_GRACE)


def max_requests(count: int | None) -> int | None:
    """0 and null are: no cap."""
    return _within("max_requests", count or 0, 0, _MOST_REQUESTS) or None


def expires_at(at: datetime | None) -> datetime | None:
    return None if at is None else _utc("expires_at", at)


def _utc(field: str, at: datetime) -> datetime:
    if at.tzinfo is None:
        raise invalid(field, "must name a time zone, like 2030-01-31T12:00:00Z")
    try:
        return at.astimezone(UTC)
    except OverflowError as exc:
        raise invalid(field, "must lie between the years 1 and 9999") from exc


def future_expires_at(at: datetime | None, now: datetime) -> datetime | None:
    """Of a token that is yet to be made."""
    at = expires_at(at)
    if at is not None and at <= now:
        raise invalid("expires_at", f"must lie in the future, not at {_shown(at)}")
    return at


def not_before(at: datetime | None) -> datetime | None:
    if at is None:
        return None
    at = _utc("not_before", at)
    if at.year >= _LAST_YEAR:
        raise invalid("not_before", f"must lie before the year {_LAST_YEAR}")
    return at


def check_order(begin: datetime | None, end: datetime | None) -> None:
    if begin is not None and end is not None and begin >= end:
        raise invalid("not_before", f"must lie before expires_at ({_shown(end)})")


def idle_timeout_seconds(seconds: int | None) -> int | None:
    """null is: none. Use is counted to the second or so, hence the least."""
    if seconds is None:
        return None
    return _within("idle_timeout_seconds", seconds, _LEAST_IDLE, _LONGEST_IDLE)


def rate_limit(text: str | None) -> str | None:
    """In the usual spelling; null is the configuration's."""
    if text is None:
        return None
    try:
        return format_rate(parse_rate(text))
    except ValueError as exc:
        raise invalid("rate_limit", f"must be {exc}, not {shortened(text)!r}") from exc


def rate_burst(count: int | None) -> int | None:
    return None if count is None else _within("rate_burst", count, 1, MAX_BURST)


def max_concurrent(count: int | None) -> int | None:
    """0 is: unlimited, null: the configuration's."""
    return None if count is None else _within("max_concurrent", count, 0, MAX_CONCURRENT)


def digest(text: str) -> bytes:
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != 32 or len(text) != 64:
        raise invalid("digest", "must be a token's SHA-256 digest in 64 hexadecimal digits")
    return raw


def _text(field: str, text: str, longest: int) -> str:
    if len(text) > longest:
        raise invalid(field, f"must have at most {longest} characters, not {len(text)}")
    if any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text):
        raise invalid(field, "must not contain control characters")
    return text


def _shown(at: datetime) -> str:
    return f"{at.replace(tzinfo=None).isoformat(timespec='seconds')}Z"


def _within(field: str, value: int, lowest: int, highest: int) -> int:
    if not lowest <= value <= highest:
        rule = f"must be a whole number from {lowest} to {highest}"
        raise invalid(field, f"{rule}, not {shortened(str(value))}")
    return value
