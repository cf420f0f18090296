"""What the management API answers with, typed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec


class Project(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    api_key: str | None  # masked
    api_keys: dict[str, str] = {}  # masked, by name of the api
    description: str
    metadata: dict[str, Any]
    is_active: bool
    deactivated_at: datetime | None
    created_at: datetime
    updated_at: datetime


class Token(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    token: str  # masked
    project_id: str
    expires_at: datetime | None
    is_active: bool
    deactivated_at: datetime | None = None
    request_count: int
    max_requests: int | None
    created_at: datetime
    last_used_at: datetime | None
    cache_hit_count: int

    def state(self, at: datetime) -> str:
        """One word for whether it works."""
        if not self.is_active:
            return "revoked"
        if self.expires_at is not None and self.expires_at <= at:
            return "expired"
        if self.max_requests is not None and self.request_count >= self.max_requests:
            return "used up"
        return "active"


class NewToken(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The one answer with a token in it."""

    id: str
    token: str
    project_id: str
    expires_at: datetime | None
    max_requests: int | None
    previous_valid_until: datetime | None = None  # after a rotation

    def __repr__(self) -> str:
        return f"NewToken(id={self.id!r})"


class RevokedTokens(msgspec.Struct, frozen=True, kw_only=True):
    revoked_count: int
    already_revoked_count: int
    total_tokens: int
