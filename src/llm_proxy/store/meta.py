"""What a database knows of itself, as names and values."""

from __future__ import annotations

from collections.abc import Sequence

from llm_proxy.store.models import MetaRow
from llm_proxy.store.opening import Database


def read_meta(database: Database, names: Sequence[str]) -> dict[str, str]:
    """Those of them that are set."""
    rows = MetaRow.select().where(MetaRow.name.in_(names)).execute(database)
    return {row.name: row.value for row in rows}


def write_meta(database: Database, name: str, value: str) -> None:
    """Within a writing transaction."""
    is_name = MetaRow.name == name
    if MetaRow.select().where(is_name).exists(database):
        MetaRow.update(value=value).where(is_name).execute(database)
    else:
        MetaRow.insert(name=name, value=value).execute(database)


def delete_meta(database: Database, names: Sequence[str]) -> int:
    """How many of them were set."""
    deleted: int = MetaRow.delete().where(MetaRow.name.in_(names)).execute(database)
    return deleted
