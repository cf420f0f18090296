"""What the gateway asks of the store, and tells it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_proxy.grants import TokenGrant
from llm_proxy.limits import LimitOverride
from llm_proxy.store.database import Store
from llm_proxy.store.expiry import idle_end
from llm_proxy.store.scopes import decode_scope
from llm_proxy.store.timestamps import from_stored, maybe_from_stored, maybe_to_stored

WARNING_S = 24 * 3600.0  # before its end a token's answers say so, if that isn't most of its life
_WARNING_SHARE = 10  # of a shorter life only this part

# Plain SQL: a gateway waits for it, and building the same with peewee costs ten times the query.
_GRANT = """
SELECT tokens.id, tokens.project_id, tokens.is_active, projects.is_active, tokens.deactivated_at,
       tokens.created_at, tokens.not_before, tokens.expires_at,
       CASE WHEN tokens.digest = ? THEN NULL ELSE tokens.previous_valid_until END,
       tokens.idle_timeout_s, tokens.last_used_at,
       tokens.max_requests, tokens.scope,
       tokens.rate_limit, tokens.rate_burst, tokens.max_concurrent,
       projects.rate_limit, projects.rate_burst, projects.max_concurrent
FROM tokens JOIN projects ON projects.id = tokens.project_id
WHERE tokens.digest = ? OR tokens.previous_digest = ?
"""
_KEYS = "SELECT api, encrypted FROM api_keys WHERE project_id = ?"


def load_grant(store: Store, digest: bytes) -> TokenGrant | None:
    """By the token's digest, or by the one it had before its last rotation until that ends."""
    text = digest.hex()
    with store.reading() as database:
        rows = database.sql(_GRANT, (text, text, text))
        if not rows:
            return None
        token_id, project_id, is_active, project_is_active, deactivated_at, *others = rows[0]
        keys = database.sql(_KEYS, (project_id,))
    created_at, not_before, expires_at, grace_ends_at, idle_s, last_used_at, *limits = others
    max_requests, scope, *overrides = limits
    ends = [end for end in (expires_at, grace_ends_at) if end]
    if deactivated_at and deactivated_at in _expiries(others):
        is_active = True  # nobody revoked it: it was cleaned up, and is refused as expired
        ends.append(deactivated_at)
    end = min(map(_seconds, ends), default=None)
    began = _seconds(created_at)
    return TokenGrant(
        token_id=token_id,
        project_id=project_id,
        is_active=bool(is_active),
        project_is_active=bool(project_is_active),
        not_before=None if not_before is None else _seconds(not_before),
        expires_at=end,
        warns_at=None if end is None else warns_at(began, end),
        idle_timeout=idle_s,
        last_used_at=_seconds(last_used_at) if last_used_at else began,
        max_requests=max_requests,
        scope=decode_scope(token_id, scope),
        token_limits=_override(overrides[:3]),
        project_limits=_override(overrides[3:]),
        upstream_keys={api: store.cipher.decrypt(encrypted) for api, encrypted in keys},
    )


def warns_at(began: float, ends: float) -> float:
    """From when on answers say that the token expires soon; all in Unix seconds."""
    return ends - min(WARNING_S, max(ends - began, 0.0) / _WARNING_SHARE)


def _expiries(row: Sequence[Any]) -> tuple[str | None, str | None]:
    """What the clean-up writes as the moment of its deactivation."""
    created_at, not_before, expires_at, _, idle_s, last_used_at, *_ = row
    idle = idle_end(
        created_at=from_stored(created_at),
        not_before=maybe_from_stored(not_before),
        last_used_at=maybe_from_stored(last_used_at),
        idle_timeout_s=idle_s,
    )
    return expires_at, maybe_to_stored(idle)


def _seconds(stored: str) -> float:
    return from_stored(stored).timestamp()


def _override(columns: Sequence[Any]) -> LimitOverride:
    rate_limit, rate_burst, max_concurrent = columns
    return LimitOverride(
        rate_limit=rate_limit, rate_burst=rate_burst, max_concurrent=max_concurrent
    )
