"""Tokens: digests, limits and counters. A token itself is never stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import peewee
from msgspec import UNSET, UnsetType

from llm_proxy.grants import Scope
from llm_proxy.limits import LimitOverride
from llm_proxy.store.changes import Kind, append_change
from llm_proxy.store.database import Store
from llm_proxy.store.expiry import has_idled, idle_end, is_usable
from llm_proxy.store.models import TokenRow
from llm_proxy.store.opening import Database
from llm_proxy.store.own_limits import LimitChanges, limit_columns, read_limits
from llm_proxy.store.page import Page
from llm_proxy.store.scopes import ScopeChanges, decode_scope, encode_scope
from llm_proxy.store.timestamps import from_stored, maybe_from_stored, maybe_to_stored, to_stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    id: str
    name: str
    masked: str  # enough to recognise it by
    project_id: str
    expires_at: datetime | None  # None: never
    is_active: bool
    deactivated_at: datetime | None
    max_requests: int | None  # None: no cap
    request_count: int
    cache_hit_count: int
    created_at: datetime
    last_used_at: datetime | None
    not_before: datetime | None = None
    idle_timeout_s: int | None = None
    scope: Scope = Scope()
    limits: LimitOverride = LimitOverride()

    @property
    def idle_expires_at(self) -> datetime | None:
        """When it has expired if it isn't used again."""
        return idle_end(
            created_at=self.created_at,
            not_before=self.not_before,
            last_used_at=self.last_used_at,
            idle_timeout_s=self.idle_timeout_s,
        )


class TokenChanges(msgspec.Struct, frozen=True, kw_only=True):
    """UNSET leaves a field as it is."""

    name: str | UnsetType = UNSET
    is_active: bool | UnsetType = UNSET
    max_requests: int | None | UnsetType = UNSET
    expires_at: datetime | None | UnsetType = UNSET
    not_before: datetime | None | UnsetType = UNSET
    idle_timeout_s: int | None | UnsetType = UNSET
    scope: ScopeChanges | None | UnsetType = UNSET  # None: narrowed to nothing any more
    limits: LimitChanges = LimitChanges()
    cuts_running: bool = False  # ends requests that run


class RevokedTokens(NamedTuple):
    revoked: int
    already_revoked: int
    total: int


def create_token(store: Store, token: Token, *, digest: bytes) -> None:
    """The project must exist."""
    with store.writing() as database:
        TokenRow.insert(
            id=token.id,
            digest=digest.hex(),
            masked=token.masked,
            name=token.name,
            project_id=token.project_id,
            expires_at=maybe_to_stored(token.expires_at),
            is_active=token.is_active,
            deactivated_at=maybe_to_stored(token.deactivated_at),
            max_requests=token.max_requests,
            request_count=token.request_count,
            cache_hit_count=token.cache_hit_count,
            created_at=to_stored(token.created_at),
            last_used_at=maybe_to_stored(token.last_used_at),
            not_before=maybe_to_stored(token.not_before),
            idle_timeout_s=token.idle_timeout_s,
            scope=encode_scope(token.scope),
            **limit_columns(token.limits),
        ).execute(database)
        append_change(database, "token", token.id, token.created_at)


def get_token(store: Store, token_id: str) -> Token | None:
    with store.reading() as database:
        return _maybe_token(_row(database, token_id))


def find_token(store: Store, digest: bytes) -> Token | None:
    """By the digest it has, or had before its last rotation."""
    text = digest.hex()
    matches = (TokenRow.digest == text) | (TokenRow.previous_digest == text)
    with store.reading() as database:
        return _maybe_token(TokenRow.select().where(matches).first(database))


def list_tokens(
    store: Store,
    *,
    limit: int,
    after: str | None = None,
    project_id: str | None = None,
    usable_at: datetime | None = None,
) -> Page[Token]:
    """The newest first; with `usable_at` only those that work then."""
    with store.reading() as database:
        return _list_tokens(database, limit, after, _chosen(database, project_id, usable_at))


def _chosen(
    database: Database, project_id: str | None, usable_at: datetime | None
) -> peewee.ModelSelect[TokenRow]:
    chosen = TokenRow.select()
    if project_id is not None:
        chosen = chosen.where(TokenRow.project_id == project_id)
    if usable_at is not None:
        chosen = chosen.where(is_usable(database, usable_at))
    return chosen


def _list_tokens(
    database: Database, limit: int, after: str | None, chosen: peewee.ModelSelect[TokenRow]
) -> Page[Token]:
    query = chosen.order_by(TokenRow.created_at.desc(), TokenRow.id.desc()).limit(limit + 1)
    if after is not None:
        created_at, _, token_id = after.partition(" ")
        query = query.where(
            (TokenRow.created_at < created_at)
            | ((TokenRow.created_at == created_at) & (TokenRow.id < token_id))
        )
    rows = list(query.execute(database))
    total = chosen.count(database)
    items = [_token(row) for row in rows[:limit]]
    last = rows[limit - 1] if len(rows) > limit else None
    return Page(items=items, total=total, after=f"{last.created_at} {last.id}" if last else None)


def update_token(
    store: Store, token_id: str, changes: TokenChanges, *, at: datetime
) -> Token | None:
    """The token as it is then; None when there is none."""
    with store.writing() as database:
        row = _row(database, token_id)
        if row is None:
            return None
        columns = _changed_columns(row, changes, at)
        if columns:
            TokenRow.update(columns).where(TokenRow.id == token_id).execute(database)
        if columns or changes.cuts_running:
            kind: Kind = "token_cut" if changes.cuts_running else "token"
            append_change(database, kind, token_id, at)
        return get_token(store, token_id)


def _changed_columns(row: TokenRow, changes: TokenChanges, at: datetime) -> dict[Any, Any]:
    columns: dict[Any, Any] = limit_columns(changes.limits)
    if changes.name is not UNSET:
        columns[TokenRow.name] = changes.name
    if changes.max_requests is not UNSET:
        columns[TokenRow.max_requests] = changes.max_requests
    if not isinstance(changes.expires_at, UnsetType):
        columns[TokenRow.expires_at] = maybe_to_stored(changes.expires_at)
    if changes.idle_timeout_s is not UNSET:
        columns[TokenRow.idle_timeout_s] = row.idle_timeout_s = changes.idle_timeout_s
    if not isinstance(changes.scope, UnsetType):
        columns[TokenRow.scope] = _changed_scope(row, changes.scope)
    if not isinstance(changes.not_before, UnsetType):
        columns[TokenRow.not_before] = maybe_to_stored(changes.not_before)
    elif changes.is_active is True and has_idled(row, at):
        columns[TokenRow.not_before] = to_stored(at)  # else it would be idle again at once
    if changes.is_active is not UNSET and changes.is_active != row.is_active:
        columns[TokenRow.is_active] = changes.is_active
        columns[TokenRow.deactivated_at] = None if changes.is_active else to_stored(at)
    return columns


def _changed_scope(row: TokenRow, changes: ScopeChanges | None) -> str | None:
    if changes is None:
        return None
    return encode_scope(changes.applied_to(decode_scope(row.id, row.scope)))


def rotate_token(
    store: Store,
    token_id: str,
    *,
    digest: bytes,
    masked: str,
    previous_valid_until: datetime,
    at: datetime,
) -> Token | None:
    """Gives it a new digest. The one before works until then; one from further back doesn't."""
    with store.writing() as database:
        row = _row(database, token_id)
        if row is None:
            return None
        columns = {
            TokenRow.previous_digest: row.digest,  # MySQL's SET would read the new one
            TokenRow.previous_valid_until: to_stored(previous_valid_until),
            TokenRow.digest: digest.hex(),
            TokenRow.masked: masked,
        }
        TokenRow.update(columns).where(TokenRow.id == token_id).execute(database)
        append_change(database, "token", token_id, at)
        return get_token(store, token_id)


def revoke_token(store: Store, token_id: str, *, at: datetime, cuts_running: bool = False) -> bool:
    """False when there is no such token; revoking again changes nothing."""
    changes = TokenChanges(is_active=False, cuts_running=cuts_running)
    return update_token(store, token_id, changes, at=at) is not None


def revoke_project_tokens(
    store: Store, project_id: str, *, at: datetime, cuts_running: bool = False
) -> RevokedTokens:
    with store.writing() as database:
        total = TokenRow.select().where(TokenRow.project_id == project_id).count(database)
        revoked = revoke_all(database, project_id, at)
        if revoked or cuts_running:
            kind: Kind = "project_cut" if cuts_running else "project"
            append_change(database, kind, project_id, at)
    return RevokedTokens(revoked=revoked, already_revoked=total - revoked, total=total)


def revoke_all(database: Database, project_id: str, at: datetime) -> int:
    """The caller appends the change."""
    count: int = (
        TokenRow.update({TokenRow.is_active: False, TokenRow.deactivated_at: to_stored(at)})
        .where((TokenRow.project_id == project_id) & TokenRow.is_active)
        .execute(database)
    )
    return count


def _row(database: Database, token_id: str) -> TokenRow | None:
    row: TokenRow | None = TokenRow.select().where(TokenRow.id == token_id).first(database)
    return row


def _maybe_token(row: TokenRow | None) -> Token | None:
    return None if row is None else _token(row)


def _token(row: TokenRow) -> Token:
    return Token(
        id=row.id,
        name=row.name,
        masked=row.masked,
        project_id=row.project_id,
        expires_at=maybe_from_stored(row.expires_at),
        is_active=row.is_active,
        deactivated_at=maybe_from_stored(row.deactivated_at),
        max_requests=row.max_requests,
        request_count=row.request_count,
        cache_hit_count=row.cache_hit_count,
        created_at=from_stored(row.created_at),
        last_used_at=maybe_from_stored(row.last_used_at),
        not_before=maybe_from_stored(row.not_before),
        idle_timeout_s=row.idle_timeout_s,
        scope=decode_scope(row.id, row.scope),
        limits=read_limits(row),
    )
