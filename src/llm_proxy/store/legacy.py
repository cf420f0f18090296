"""Databases of the older program, read and never written: SQLite files with its tables."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from llm_proxy.errors import StoreError
from llm_proxy.secrets import (
    Cipher,
    Secret,
    is_encrypted,
    mask,
    may_be_legacy_token,
    token_digest,
)
from llm_proxy.store.engines.sqlite_failures import translated
from llm_proxy.store.engines.sqlite_file import APPLICATION_ID

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d+))? ?(Z|[+-]\d\d:?\d\d)?(?: .*)?", re.ASCII
)
_ID_SPACE = uuid.UUID("7d8ed5ca-8d52-4ef8-9b1f-2f3c0d1c2f6e")  # of tokens that have no id yet


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyProject:
    id: str
    name: str
    api_key: Secret | None
    is_active: bool
    deactivated_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyToken:
    id: str
    digest: str  # SHA-256 in hexadecimal
    masked: str
    project_id: str
    expires_at: datetime | None
    is_active: bool
    deactivated_at: datetime | None
    request_count: int
    max_requests: int | None
    cache_hit_count: int
    created_at: datetime
    last_used_at: datetime | None


class LegacyData(NamedTuple):
    projects: list[LegacyProject]
    tokens: list[LegacyToken]
    unusable: int  # tokens that the older program refused, too: malformed, or of no project


def read_legacy(path: Path, ciphers: Sequence[Cipher], *, now: datetime) -> LegacyData:
    """All of it. `ciphers` are tried in turn on upstream keys that are encrypted.

    `now` stands for times that aren't known. Raises StoreError.
    """
    with _opened(path) as connection:
        projects = [_project(row, ciphers, now) for row in _rows(connection, path, "projects")]
        rows = _rows(connection, path, "tokens")
    known = {project.id for project in projects}
    tokens = [token for row in rows if (token := _token(row, known, now)) is not None]
    return LegacyData(projects=projects, tokens=tokens, unusable=len(rows) - len(tokens))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.is_file():
        raise StoreError(f"there is no database of the older program at {path}; name its file")
    # `immutable` makes no file beside it. Where a log is, somebody may be writing: SQLite takes
    # care of that, and of what a crash has left.
    has_log = path.with_name(path.name + "-wal").exists()
    mode = "mode=ro" if has_log else "mode=ro&immutable=1"
    location = f"file:{quote(str(path.absolute()))}?{mode}"
    with translated(path), contextlib.closing(sqlite3.connect(location, uri=True)) as connection:
        if connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,):
            raise StoreError(f"{path} is a database of this program; name one of the older")
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")  # one consistent view
        yield connection


def _rows(connection: sqlite3.Connection, path: Path, table: str) -> list[dict[str, Any]]:
    if not connection.execute(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)
    ).fetchone():
        raise StoreError(
            f"the database {path} isn't one of the older program: it has no table {table}"
        )
    return [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY rowid")]


def _project(row: dict[str, Any], ciphers: Sequence[Cipher], now: datetime) -> LegacyProject:
    place = f"project {row.get('name')!r} of the older database"
    created_at = _time(row, "created_at", place) or now
    return LegacyProject(
        id=_text(row, "id", place),
        name=_text(row, "name", place),
        # The second is how the column was called first.
        api_key=_key(row.get("api_key") or row.get("openai_api_key") or "", ciphers, place),
        is_active=bool(row.get("is_active", True)),
        deactivated_at=_time(row, "deactivated_at", place),
        created_at=created_at,
        updated_at=_time(row, "updated_at", place) or created_at,
    )


def _token(row: dict[str, Any], projects: set[str], now: datetime) -> LegacyToken | None:
    identity = _identity(str(row.get("token") or ""))
    if identity is None or row.get("project_id") not in projects:
        return None
    digest, masked = identity
    token_id = str(row.get("id") or uuid.uuid5(_ID_SPACE, digest))
    place = f"token {token_id} of the older database"
    return LegacyToken(
        id=token_id,
        digest=digest,
        masked=masked,
        project_id=row["project_id"],
        expires_at=_time(row, "expires_at", place),
        is_active=bool(row.get("is_active", True)),
        deactivated_at=_time(row, "deactivated_at", place),
        request_count=int(row.get("request_count") or 0),
        max_requests=_cap(row.get("max_requests")),
        cache_hit_count=int(row.get("cache_hit_count") or 0),
        created_at=_time(row, "created_at", place) or now,
        last_used_at=_time(row, "last_used_at", place),
    )


def _identity(stored: str) -> tuple[str, str] | None:
    """Digest and masked form of what the column holds: a token, or its digest already."""
    if _DIGEST.fullmatch(stored):
        return stored, f"sha256:{stored[:8]}…"
    if not may_be_legacy_token(stored.encode("utf-8", "surrogateescape")):
        return None
    return token_digest(stored.encode()).hex(), mask(stored)


def _cap(value: object) -> int | None:
    """There, zero is no cap."""
    return value if isinstance(value, int) and value > 0 else None


def _key(stored: str, ciphers: Sequence[Cipher], place: str) -> Secret | None:
    if not is_encrypted(stored):
        return Secret(stored) if stored else None
    for cipher in ciphers:
        if cipher.opens(stored):
            return cipher.decrypt(stored)
    raise StoreError(
        f"the upstream key of {place} is encrypted with another key; "
        "give that program's ENCRYPTION_KEY with --old-key"
    )


def _text(row: dict[str, Any], column: str, place: str) -> str:
    value = row.get(column)
    if not isinstance(value, str) or not value:
        raise StoreError(f"{column} of {place} must be text; correct it there first")
    return value


def _time(row: dict[str, Any], column: str, place: str) -> datetime | None:
    value = row.get(column)
    if value is None:
        return None
    try:
        return parse_time(str(value))
    except ValueError:
        raise StoreError(
            f"{column} of {place} must be a time like 2025-01-31 12:00:00, not {value!r}; "
            "correct it there first"
        ) from None


def parse_time(text: str) -> datetime:
    """As SQLite and the drivers of Go write it; UTC where no zone is named. Raises ValueError."""
    if (found := _TIME.fullmatch(text.strip())) is None:
        raise ValueError(text)
    day, clock, fraction, zone = found.groups()
    micros = int((fraction or "")[:6].ljust(6, "0"))
    at = datetime.fromisoformat(f"{day}T{clock}").replace(microsecond=micros)
    return at.replace(tzinfo=_zone(zone)).astimezone(UTC)


def _zone(text: str | None) -> timezone:
    if text in (None, "Z"):
        return UTC
    assert text is not None
    hours, minutes = int(text[1:3]), int(text[-2:])
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(-offset if text[0] == "-" else offset)
