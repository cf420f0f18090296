"""What the management API answers with, typed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from llm_proxy.audit_chain import Verdict


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
    rate_limit: str | None = None  # None: what the configuration says
    rate_burst: int | None = None
    max_concurrent: int | None = None


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What a token is narrowed to; an empty list narrows nothing."""

    apis: list[str] = []
    endpoints: list[str] = []
    methods: list[str] = []
    models: list[str] = []
    networks: list[str] = []


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
    not_before: datetime | None = None
    idle_timeout_seconds: int | None = None
    idle_expires_at: datetime | None = None  # if it isn't used again
    scope: Scope | None = None
    rate_limit: str | None = None  # None: what the configuration says
    rate_burst: int | None = None
    max_concurrent: int | None = None

    @property
    def ends_at(self) -> datetime | None:
        """When it expires if it isn't used again."""
        ends = (self.expires_at, self.idle_expires_at)
        return min((end for end in ends if end is not None), default=None)

    def state(self, at: datetime) -> str:
        """One word for whether it works."""
        # The server deactivates what has expired, as of when it did.
        looked_at = at if self.is_active else self.deactivated_at
        end = self.ends_at
        if end is not None and looked_at is not None and end <= looked_at:
            return "expired"
        if not self.is_active:
            return "revoked"
        if self.not_before is not None and at < self.not_before:
            return "pending"
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


class AuditReport(msgspec.Struct, frozen=True, kw_only=True):
    sound: bool
    chains: list[Verdict]
