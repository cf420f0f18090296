"""What the gateway asks of the store, and tells it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from llm_proxy.grants import TokenGrant, TokenUse
from llm_proxy.store.database import Store
from llm_proxy.store.timestamps import from_stored, to_stored

# Plain SQL: a gateway waits for it, and building the same with peewee costs ten times the query.
_GRANT = """
SELECT tokens.id, tokens.project_id, tokens.is_active, projects.is_active, tokens.max_requests,
       tokens.request_count, tokens.expires_at,
       CASE WHEN tokens.digest = ?1 THEN NULL ELSE tokens.previous_valid_until END
FROM tokens JOIN projects ON projects.id = tokens.project_id
WHERE tokens.digest = ?1 OR tokens.previous_digest = ?1
"""
_KEYS = "SELECT api, encrypted FROM api_keys WHERE project_id = ?"
_USE = """
UPDATE tokens SET request_count = request_count + ?,
                  last_used_at = max(coalesce(last_used_at, ''), ?)
WHERE id = ?
"""


def load_grant(store: Store, digest: bytes) -> TokenGrant | None:
    """By the token's digest, or by the one it had before its last rotation until that ends."""
    with store.reading() as database:
        rows = database.sql(_GRANT, (digest.hex(),))
        if not rows:
            return None
        token_id, project_id, is_active, project_is_active, cap, count, *ends = rows[0]
        keys = database.sql(_KEYS, (project_id,))
    return TokenGrant(
        token_id=token_id,
        project_id=project_id,
        is_active=bool(is_active),
        project_is_active=bool(project_is_active),
        expires_at=min((from_stored(end).timestamp() for end in ends if end), default=None),
        max_requests=cap,
        request_count=count,
        upstream_keys={api: store.cipher.decrypt(encrypted) for api, encrypted in keys},
    )


def record_usage(store: Store, uses: Sequence[TokenUse]) -> None:
    """Adds to the counters, all in one transaction. Tokens that are gone are passed over."""
    with store.writing() as database:
        for use in uses:
            last_used_at = to_stored(datetime.fromtimestamp(use.last_used_at, UTC))
            database.sql(_USE, (use.requests, last_used_at, use.token_id))
