"""What a token allows: the immutable snapshot that the store makes and the gateway obeys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llm_proxy.secrets import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGrant:
    token_id: str
    project_id: str
    is_active: bool
    project_is_active: bool
    expires_at: float | None  # Unix seconds; None: never
    max_requests: int | None  # None: no cap
    request_count: int  # as stored when the snapshot was taken
    upstream_keys: Mapping[str, Secret]  # by name of the api


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUse:
    """What a worker counted of one token since it last said so."""

    token_id: str
    requests: int
    last_used_at: float  # Unix seconds
