"""Audit records as people look for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from operator import or_
from typing import Any, Final

from llm_proxy.audit import AuditRecord
from llm_proxy.store.audit import record_of
from llm_proxy.store.database import Store
from llm_proxy.store.models import AuditRow
from llm_proxy.store.page import Page
from llm_proxy.store.timestamps import to_stored

# Filters that a record must match to the letter.
EXACT: Final = (
    "action",
    "actor",
    "outcome",
    "client_ip",
    "request_id",
    "method",
    "path",
    "project_id",
    "token_id",
)
_SEARCHED: Final = (*EXACT, "user_agent", "reason", "details")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    exact: dict[str, str] = field(default_factory=dict)  # by name of the field
    search: str | None = None  # anywhere in a record's texts, in any case
    since: datetime | None = None
    until: datetime | None = None


def list_records(
    store: Store, wanted: AuditFilter, *, limit: int, after: str | None = None
) -> Page[AuditRecord]:
    """The newest first."""
    chosen = AuditRow.select()
    for condition in _conditions(wanted):
        chosen = chosen.where(condition)
    query = chosen.order_by(AuditRow.timestamp.desc(), AuditRow.id.desc()).limit(limit + 1)
    if after is not None:
        timestamp, _, record_id = after.partition(" ")
        query = query.where(
            (AuditRow.timestamp < timestamp)
            | ((AuditRow.timestamp == timestamp) & (AuditRow.id < record_id))
        )
    with store.reading() as database:
        rows = list(query.execute(database))
        total = chosen.count(database)
    last = rows[limit - 1] if len(rows) > limit else None
    return Page(
        items=[record_of(row) for row in rows[:limit]],
        total=total,
        after=f"{last.timestamp} {last.id}" if last else None,
    )


def get_record(store: Store, record_id: str) -> AuditRecord | None:
    with store.reading() as database:
        row = AuditRow.select().where(AuditRow.id == record_id).first(database)
        return None if row is None else record_of(row)


def _conditions(wanted: AuditFilter) -> list[Any]:
    conditions = [getattr(AuditRow, name) == value for name, value in wanted.exact.items()]
    if wanted.since is not None:
        conditions.append(AuditRow.timestamp >= to_stored(wanted.since))
    if wanted.until is not None:
        conditions.append(AuditRow.timestamp <= to_stored(wanted.until))
    if wanted.search:
        texts = [getattr(AuditRow, name).contains(wanted.search) for name in _SEARCHED]
        conditions.append(reduce(or_, texts))
    return conditions
