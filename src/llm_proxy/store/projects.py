"""Projects and their upstream keys."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from llm_proxy.errors import Conflict
from llm_proxy.limits import LimitOverride
from llm_proxy.secrets import Secret
from llm_proxy.store.changes import Kind, append_change
from llm_proxy.store.database import Store
from llm_proxy.store.expiry import may_be_used
from llm_proxy.store.models import ApiKeyRow, ProjectRow, TokenRow
from llm_proxy.store.opening import Database
from llm_proxy.store.own_limits import LimitChanges, limit_columns, read_limits
from llm_proxy.store.page import Page
from llm_proxy.store.timestamps import from_stored, maybe_from_stored, maybe_to_stored, to_stored
from llm_proxy.store.tokens import revoke_all


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    id: str
    name: str
    description: str
    metadata: Mapping[str, Any]
    is_active: bool
    deactivated_at: datetime | None
    created_at: datetime
    updated_at: datetime
    api_keys: Mapping[str, Secret]  # by name of the api
    limits: LimitOverride = LimitOverride()  # of all its tokens together


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectChanges:
    """None leaves a field as it is."""

    name: str | None = None
    description: str | None = None
    metadata: Mapping[str, Any] | None = None
    is_active: bool | None = None
    api_keys: Mapping[str, Secret | None] | None = None  # merged; None removes
    limits: LimitChanges = LimitChanges()
    revokes_tokens: bool = False
    cuts_running: bool = False  # ends requests that run


def create_project(store: Store, project: Project) -> None:
    """Raises Conflict when the name is taken."""
    with store.writing() as database:
        _refuse_taken_name(database, project.name, project.id)
        ProjectRow.insert(
            id=project.id,
            name=project.name,
            description=project.description,
            metadata=_encode(project.metadata),
            is_active=project.is_active,
            deactivated_at=maybe_to_stored(project.deactivated_at),
            created_at=to_stored(project.created_at),
            updated_at=to_stored(project.updated_at),
            **limit_columns(project.limits),
        ).execute(database)
        _merge_keys(store, database, project.id, project.api_keys)
        append_change(database, "project", project.id, project.created_at)


def get_project(store: Store, project_id: str) -> Project | None:
    with store.reading() as database:
        row = ProjectRow.select().where(ProjectRow.id == project_id).first(database)
        return None if row is None else _projects(store, database, [row])[0]


def list_projects(store: Store, *, limit: int, after: str | None = None) -> Page[Project]:
    """By name."""
    query = ProjectRow.select().order_by(ProjectRow.name).limit(limit + 1)
    if after is not None:
        query = query.where(ProjectRow.name > after)
    with store.reading() as database:
        rows = list(query.execute(database))
        total = ProjectRow.select().count(database)
        items = _projects(store, database, rows[:limit])
    return Page(items=items, total=total, after=items[-1].name if len(rows) > limit else None)


def update_project(
    store: Store, project_id: str, changes: ProjectChanges, *, at: datetime
) -> Project | None:
    """The project as it is then; None when there is none. Raises Conflict on a taken name."""
    with store.writing() as database:
        row = ProjectRow.select().where(ProjectRow.id == project_id).first(database)
        if row is None:
            return None
        if changes != ProjectChanges():
            columns = _changed_columns(database, row, changes, at)
            ProjectRow.update(columns).where(ProjectRow.id == project_id).execute(database)
            _merge_keys(store, database, project_id, changes.api_keys or {})
            if changes.revokes_tokens:
                revoke_all(database, project_id, at)
            append_change(database, _kind(changes.cuts_running), project_id, at)
        return get_project(store, project_id)


def _changed_columns(
    database: Database, row: ProjectRow, changes: ProjectChanges, at: datetime
) -> dict[Any, Any]:
    columns: dict[Any, Any] = {
        ProjectRow.updated_at: to_stored(at),
        **limit_columns(changes.limits),
    }
    if changes.name is not None:
        _refuse_taken_name(database, changes.name, row.id)
        columns[ProjectRow.name] = changes.name
    if changes.description is not None:
        columns[ProjectRow.description] = changes.description
    if changes.metadata is not None:
        columns[ProjectRow.metadata] = _encode(changes.metadata)
    if changes.is_active is not None and changes.is_active != row.is_active:
        columns[ProjectRow.is_active] = changes.is_active
        columns[ProjectRow.deactivated_at] = None if changes.is_active else to_stored(at)
    return columns


def delete_project(
    store: Store, project_id: str, *, at: datetime, force: bool, cuts_running: bool = False
) -> bool:
    """With its keys and tokens. Raises Conflict while tokens work, unless forced."""
    with store.writing() as database:
        active = (
            TokenRow.select().where((TokenRow.project_id == project_id) & may_be_used(database, at))
        ).count(database)
        if active and not force:
            tokens = "1 active token" if active == 1 else f"{active} active tokens"
            raise Conflict(
                f"the project still has {tokens}; "
                "revoke the tokens first, or delete them with it by force=true (--force)"
            )
        if not ProjectRow.delete().where(ProjectRow.id == project_id).execute(database):
            return False
        append_change(database, _kind(cuts_running), project_id, at)
        return True


def _kind(cuts_running: bool) -> Kind:
    return "project_cut" if cuts_running else "project"


def _refuse_taken_name(database: Database, name: str, project_id: str) -> None:
    taken = ProjectRow.select().where((ProjectRow.name == name) & (ProjectRow.id != project_id))
    if taken.exists(database):
        raise Conflict(f"a project named {name!r} exists already; choose another name")


def _merge_keys(
    store: Store,
    database: Database,
    project_id: str,
    api_keys: Mapping[str, Secret | None],
) -> None:
    for api, key in api_keys.items():
        ApiKeyRow.delete().where(
            (ApiKeyRow.project_id == project_id) & (ApiKeyRow.api == api)
        ).execute(database)
        if key is not None:
            ApiKeyRow.insert(
                project_id=project_id, api=api, encrypted=store.cipher.encrypt(key)
            ).execute(database)


def _projects(store: Store, database: Database, rows: Iterable[ProjectRow]) -> list[Project]:
    rows = list(rows)
    keys = _keys_of(store, database, [row.id for row in rows])
    return [
        Project(
            id=row.id,
            name=row.name,
            description=row.description,
            metadata=msgspec.json.decode(row.metadata, type=dict[str, Any]),
            is_active=row.is_active,
            deactivated_at=maybe_from_stored(row.deactivated_at),
            created_at=from_stored(row.created_at),
            updated_at=from_stored(row.updated_at),
            api_keys=keys[row.id],
            limits=read_limits(row),
        )
        for row in rows
    ]


def _keys_of(
    store: Store, database: Database, project_ids: list[str]
) -> dict[str, dict[str, Secret]]:
    keys: dict[str, dict[str, Secret]] = defaultdict(dict)
    rows = (
        ApiKeyRow.select()
        .where(ApiKeyRow.project_id.in_(project_ids))
        .order_by(ApiKeyRow.api)
        .execute(database)
    )
    for row in rows:
        keys[row.project_id][row.api] = store.cipher.decrypt(row.encrypted)
    return keys


def _encode(metadata: Mapping[str, Any]) -> str:
    return msgspec.json.encode(metadata).decode()
