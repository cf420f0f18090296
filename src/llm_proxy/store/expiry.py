"""When tokens end by themselves: conditions for queries, and the clean-up of those that have."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import peewee

from llm_proxy.store.changes import append_change
from llm_proxy.store.database import Store
from llm_proxy.store.models import TokenRow
from llm_proxy.store.opening import Database
from llm_proxy.store.timestamps import from_stored, maybe_from_stored, to_stored

# A worker settles its uses about every second, and those of a host that is lost are settled after
# minutes; before that nobody knows that a token was idle.
IDLE_MARGIN_S: Final = 600


def idle_end(
    *,
    created_at: datetime,
    not_before: datetime | None,
    last_used_at: datetime | None,
    idle_timeout_s: int | None,
) -> datetime | None:
    """When a token that isn't used again expires for that."""
    if idle_timeout_s is None:
        return None
    begin = last_used_at or created_at
    # Before it is valid it can't be used, so that time doesn't count.
    return max(begin, not_before or begin) + timedelta(seconds=idle_timeout_s)


def is_usable(database: Database, at: datetime) -> peewee.Expression:
    """The condition that a token works at that moment, its cap aside."""
    has_begun = TokenRow.not_before.is_null() | (TokenRow.not_before <= to_stored(at))
    return may_be_used(database, at) & has_begun


def may_be_used(database: Database, at: datetime) -> peewee.Expression:
    """The condition that a token works then or later: neither revoked nor expired."""
    lasts = TokenRow.expires_at.is_null() | (TokenRow.expires_at > to_stored(at))
    condition = TokenRow.is_active & lasts
    thresholds = _idle_thresholds(database, at)
    return condition if thresholds is None else condition & ~_is_idle(thresholds)


def _idle_thresholds(database: Database, at: datetime) -> peewee.Node | None:
    """By its idle timeout: when a token must have been used since; None when none has a timeout.

    Times are stored as text, which no two databases add seconds to in the same words.
    """
    column = TokenRow.idle_timeout_s
    timeouts = TokenRow.select(column).where(column.is_null(False)).distinct().tuples()
    cases = [(s, to_stored(at - timedelta(seconds=s))) for (s,) in timeouts.execute(database)]
    return peewee.Case(column, cases) if cases else None


def _is_idle(thresholds: peewee.Node) -> peewee.Expression:
    last_use = peewee.fn.COALESCE(TokenRow.last_used_at, TokenRow.created_at)
    begin = peewee.fn.COALESCE(TokenRow.not_before, "")
    has_timeout = TokenRow.idle_timeout_s.is_null(False)
    return has_timeout & (last_use <= thresholds) & (begin <= thresholds)


def deactivate_expired(store: Store, *, at: datetime, limit: int) -> list[str]:
    """The ids of the tokens it deactivated, as of when each expired; `limit` at most."""
    idle_at = at - timedelta(seconds=IDLE_MARGIN_S)
    with store.writing() as database:
        has_ended = TokenRow.expires_at <= to_stored(at)
        if (thresholds := _idle_thresholds(database, idle_at)) is not None:
            has_ended = has_ended | _is_idle(thresholds)
        ended = TokenRow.select().where(TokenRow.is_active & has_ended).limit(limit)
        rows = list(ended.execute(database))
        for row in rows:
            columns = {
                TokenRow.is_active: False,
                TokenRow.deactivated_at: _end(row, at, idle_at),
            }
            TokenRow.update(columns).where(TokenRow.id == row.id).execute(database)
            append_change(database, "token", row.id, at)
    return [row.id for row in rows]


def _end(row: TokenRow, at: datetime, idle_at: datetime) -> str:
    expires_at, idle = maybe_from_stored(row.expires_at), _idle_end(row)
    ends = [expires_at] if expires_at is not None and expires_at <= at else []
    ends += [idle] if idle is not None and idle <= idle_at else []
    return to_stored(min(ends))


def has_idled(row: TokenRow, at: datetime) -> bool:
    end = _idle_end(row)
    return end is not None and end <= at


def _idle_end(row: TokenRow) -> datetime | None:
    return idle_end(
        created_at=from_stored(row.created_at),
        not_before=maybe_from_stored(row.not_before),
        last_used_at=maybe_from_stored(row.last_used_at),
        idle_timeout_s=row.idle_timeout_s,
    )
