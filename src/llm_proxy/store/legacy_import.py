"""Projects and tokens of the older program, written into ours."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple

from llm_proxy.store.changes import append_change
from llm_proxy.store.database import Store
from llm_proxy.store.legacy import LegacyData, LegacyProject, LegacyToken
from llm_proxy.store.meta import read_meta, write_meta
from llm_proxy.store.models import ProjectRow, TokenRow
from llm_proxy.store.opening import Database
from llm_proxy.store.projects import Project, create_project
from llm_proxy.store.timestamps import maybe_to_stored, to_stored

LEGACY: Final = "legacy"  # kind of the change that says so
_LEGACY_TOKENS: Final = "legacy_tokens"
_ROWS_AT_ONCE = 500  # engines limit the values of one statement


class Imported(NamedTuple):
    projects: int
    projects_there: int  # already, and left as they are
    tokens: int
    tokens_there: int


def import_legacy(store: Store, data: LegacyData, *, api: str, at: datetime) -> Imported:
    """All of it or nothing; what is there already stays as it is. Upstream keys are those of `api`.

    Raises Conflict when another project has the name of one.
    """
    with store.writing() as database:
        there = _ids(database)
        new = [project for project in data.projects if project.id not in there]
        for project in new:
            create_project(store, _project(project, api))
        added = _add_tokens(database, data.tokens)
        # Not one change a token: each takes the workers a look at all that they know.
        for project_id in {token.project_id for token in added}:
            append_change(database, "project", project_id, at)
        if added:
            write_meta(database, _LEGACY_TOKENS, "1")
            append_change(database, LEGACY, "", at)
    return Imported(
        projects=len(new),
        projects_there=len(data.projects) - len(new),
        tokens=len(added),
        tokens_there=len(data.tokens) - len(added),
    )


def has_legacy_tokens(store: Store) -> bool:
    """Whether tokens were imported, which have no checksum: their form says little."""
    with store.reading() as database:
        return bool(read_meta(database, (_LEGACY_TOKENS,)))


def _ids(database: Database) -> set[str]:
    return {row_id for (row_id,) in ProjectRow.select(ProjectRow.id).tuples().execute(database)}


def _project(project: LegacyProject, api: str) -> Project:
    return Project(
        id=project.id,
        name=project.name,
        description="",
        metadata={},
        is_active=project.is_active,
        deactivated_at=project.deactivated_at,
        created_at=project.created_at,
        updated_at=project.updated_at,
        api_keys={} if project.api_key is None else {api: project.api_key},
    )


def _add_tokens(database: Database, tokens: list[LegacyToken]) -> list[LegacyToken]:
    """Those that were not there."""
    known: set[str] = set()
    columns = (TokenRow.id, TokenRow.digest, TokenRow.previous_digest)
    for row in TokenRow.select(*columns).tuples().execute(database):
        known.update(row)
    added = []
    for token in tokens:
        if token.id not in known and token.digest not in known:
            added.append(token)
            known |= {token.id, token.digest}
    for start in range(0, len(added), _ROWS_AT_ONCE):
        rows = [_columns(token) for token in added[start : start + _ROWS_AT_ONCE]]
        TokenRow.insert_many(rows).execute(database)
    return added


def _columns(token: LegacyToken) -> dict[str, Any]:
    return {
        "id": token.id,
        "digest": token.digest,
        "masked": token.masked,
        "name": "",
        "project_id": token.project_id,
        "expires_at": maybe_to_stored(token.expires_at),
        "is_active": token.is_active,
        "deactivated_at": maybe_to_stored(token.deactivated_at),
        "max_requests": token.max_requests,
        "request_count": token.request_count,
        "cache_hit_count": token.cache_hit_count,
        "created_at": to_stored(token.created_at),
        "last_used_at": maybe_to_stored(token.last_used_at),
    }
