"""How times are stored: UTC text of one width, so that comparing texts compares times."""

from __future__ import annotations

from datetime import UTC, datetime


def to_stored(at: datetime) -> str:
    if at.tzinfo is None:
        raise ValueError("a time without a zone can't be stored")
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def from_stored(text: str) -> datetime:
    return datetime.fromisoformat(text)


def maybe_to_stored(at: datetime | None) -> str | None:
    return None if at is None else to_stored(at)


def maybe_from_stored(text: str | None) -> datetime | None:
    return None if text is None else from_stored(text)
