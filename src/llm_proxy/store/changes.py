"""What was altered, in order, for those who hold copies."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

import peewee

from llm_proxy.store.database import Store
from llm_proxy.store.models import ChangeRow
from llm_proxy.store.opening import Database
from llm_proxy.store.timestamps import to_stored

_MOST_AT_ONCE = 1000
_KEPT = 100_000  # readers ask twice a second; this is hours of constant changes
_PRUNE_EVERY = 1000

# A cut is a change, too; it also ends the requests that run. A key is that of encryption, and
# legacy says that from now on there are tokens of the older program's form.
Kind = Literal["token", "project", "token_cut", "project_cut", "key", "legacy"]


class Change(NamedTuple):
    """A change of a project may concern every token of it."""

    kind: str
    id: str


def append_change(database: Database, kind: Kind, object_id: str, at: datetime) -> None:
    """Call it inside the transaction that makes the change."""
    row_id = ChangeRow.insert(kind=kind, object_id=object_id, at=to_stored(at)).execute(database)
    if row_id % _PRUNE_EVERY == 0:
        ChangeRow.delete().where(ChangeRow.id <= row_id - _KEPT).execute(database)


def changes_after(store: Store, last_id: int) -> tuple[int, list[Change]]:
    """The id to ask with next, and what came after `last_id`; more than a thousand in parts."""
    query = (
        ChangeRow.select(ChangeRow.id, ChangeRow.kind, ChangeRow.object_id)
        .where(ChangeRow.id > last_id)
        .order_by(ChangeRow.id)
        .limit(_MOST_AT_ONCE)
        .tuples()
    )
    with store.reading() as database:
        rows = list(query.execute(database))
    return (rows[-1][0] if rows else last_id), [Change(kind, id) for _, kind, id in rows]


def last_change_id(store: Store) -> int:
    """Where a reader begins that loads everything fresh."""
    with store.reading() as database:
        return ChangeRow.select(peewee.fn.MAX(ChangeRow.id)).scalar(database) or 0
