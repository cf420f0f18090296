"""/manage/projects."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from llm_proxy.secrets import Secret, mask
from llm_proxy.server.channel import Change
from llm_proxy.server.control import rules
from llm_proxy.server.control.answers import invalid, json_answer, missing, nothing
from llm_proxy.server.control.context import ControlContext
from llm_proxy.server.control.own_limits import limit_changes, new_limits, shown_limits
from llm_proxy.server.control.requests import Query, read_json
from llm_proxy.store.database import Store
from llm_proxy.store.projects import (
    Project,
    ProjectChanges,
    create_project,
    delete_project,
    get_project,
    list_projects,
    update_project,
)
from llm_proxy.store.tokens import RevokedTokens, revoke_project_tokens


class _NewProject(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    api_key: str | UnsetType = UNSET
    api: str | UnsetType = UNSET
    api_keys: dict[str, str | None] | UnsetType = UNSET
    description: str | None = None
    metadata: dict[str, Any] | None = None
    rate_limit: str | None = None
    rate_burst: int | None = None
    max_concurrent: int | None = None


class _ProjectPatch(msgspec.Struct, forbid_unknown_fields=True):
    name: str | UnsetType = UNSET
    api_key: str | UnsetType = UNSET
    api: str | UnsetType = UNSET
    api_keys: dict[str, str | None] | UnsetType = UNSET
    description: str | None | UnsetType = UNSET
    metadata: dict[str, Any] | None | UnsetType = UNSET
    is_active: bool | UnsetType = UNSET
    revoke_tokens: bool = False
    cancel_running: bool = False
    rate_limit: str | None | UnsetType = UNSET
    rate_burst: int | None | UnsetType = UNSET
    max_concurrent: int | None | UnsetType = UNSET


class _Revocation(msgspec.Struct, forbid_unknown_fields=True):
    cancel_running: bool = False


class Projects:
    def __init__(self, context: ControlContext) -> None:
        self._context = context

    async def list(self, request: Request) -> Response:
        query = Query(request, known=("limit", "cursor"))
        page = await self._context.store.run(list_projects, limit=query.limit, after=query.after)
        shown = [self._shown(project) for project in page.items]
        return json_answer(shown, headers=query.page_headers(page))

    async def create(self, request: Request) -> Response:
        body = await read_json(request, _NewProject)
        name = rules.project_name(body.name)
        keys = {api: key for api, key in self._keys(body).items() if key is not None}
        if not keys:
            raise invalid("api_key", "is required (or api_keys with at least one key)")
        now = self._context.now()
        project = Project(
            id=str(uuid.uuid4()),
            name=name,
            description=rules.description(body.description),
            metadata=rules.metadata(body.metadata),
            is_active=True,
            deactivated_at=None,
            created_at=now,
            updated_at=now,
            api_keys=keys,
            limits=new_limits(body),
        )
        await self._context.commit(_changed(project.id), create_project, project)
        location = {"Location": f"/manage/projects/{project.id}"}
        return json_answer(self._shown(project), status=201, headers=location)

    async def get(self, request: Request) -> Response:
        project = await self._context.store.run(get_project, request.path_params["id"])
        return json_answer(self._shown(_found(project)))

    async def update(self, request: Request) -> Response:
        project_id = request.path_params["id"]
        changes = self._changes(await read_json(request, _ProjectPatch))
        changed = _changed(project_id, cuts=changes.cuts_running)
        project = await self._context.commit(
            changed, update_project, project_id, changes, at=self._context.now()
        )
        return json_answer(self._shown(_found(project)))

    async def delete(self, request: Request) -> Response:
        project_id = request.path_params["id"]
        query = Query(request, known=("force", "cancel_running"))
        cuts, is_forced = query.flag("cancel_running"), query.flag("force")
        query.note_flags()
        was_there = await self._context.commit(
            _changed(project_id, cuts=cuts),
            delete_project,
            project_id,
            at=self._context.now(),
            force=is_forced,
            cuts_running=cuts,
        )
        if not was_there:
            raise missing("project")
        return nothing()

    async def revoke_tokens(self, request: Request) -> Response:
        body = await read_json(request, _Revocation, may_be_empty=True)
        cuts = body.cancel_running
        project_id = request.path_params["id"]

        def revoke(store: Store) -> RevokedTokens:
            with store.writing():
                _found(get_project(store, project_id))
                now = self._context.now()
                return revoke_project_tokens(store, project_id, at=now, cuts_running=cuts)

        result = await self._context.commit(_changed(project_id, cuts=cuts), revoke)
        return json_answer(
            {
                "revoked_count": result.revoked,
                "already_revoked_count": result.already_revoked,
                "total_tokens": result.total,
            }
        )

    def _changes(self, body: _ProjectPatch) -> ProjectChanges:
        for field in ("revoke_tokens", "cancel_running"):
            if getattr(body, field) and body.is_active is not False:
                raise invalid(field, "requires is_active to be false in the same request")
        return ProjectChanges(
            name=None if body.name is UNSET else rules.project_name(body.name),
            description=None if body.description is UNSET else rules.description(body.description),
            metadata=None if body.metadata is UNSET else rules.metadata(body.metadata),
            is_active=None if body.is_active is UNSET else body.is_active,
            api_keys=self._keys(body) or None,
            limits=limit_changes(body),
            revokes_tokens=body.revoke_tokens,
            cuts_running=body.cancel_running,
        )

    def _keys(self, body: _NewProject | _ProjectPatch) -> dict[str, Secret | None]:
        """`api_key` and `api_keys` together; a key that is None is to be removed."""
        keys: dict[str, Secret | None] = {}
        for api, key in ({} if body.api_keys is UNSET else body.api_keys).items():
            if key is not None:
                rules.configured_api("api_keys", api, self._context.apis())
            keys[api] = None if key is None else rules.upstream_key(f"api_keys.{api}", key)
        if body.api_key is UNSET:
            if body.api is not UNSET:
                raise invalid("api", "says what api_key is for, but there is no api_key")
            return keys
        api = self._context.default_api() if body.api is UNSET else body.api
        rules.configured_api("api", api, self._context.apis())
        if api in keys:
            raise invalid("api_keys", f"has a key for {api!r}, and so has api_key; send one")
        keys[api] = rules.upstream_key("api_key", body.api_key)
        return keys

    def _shown(self, project: Project) -> dict[str, Any]:
        """Upstream keys leave the server masked, always."""
        masked = {api: mask(key.reveal()) for api, key in sorted(project.api_keys.items())}
        return {
            "id": project.id,
            "name": project.name,
            "api_key": self._foremost(masked),
            "api_keys": masked,
            "description": project.description,
            "metadata": project.metadata,
            "is_active": project.is_active,
            "deactivated_at": project.deactivated_at,
            "created_at": project.created_at,
            "updated_at": project.updated_at,
            **shown_limits(project.limits),
        }

    def _foremost(self, masked: Mapping[str, str]) -> str | None:
        """That of the default api, else the only one there is."""
        if (default := self._context.default_api()) in masked:
            return masked[default]
        return next(iter(masked.values())) if len(masked) == 1 else None


def _found(project: Project | None) -> Project:
    if project is None:
        raise missing("project")
    return project


def _changed(project_id: str, *, cuts: bool = False) -> Change:
    return Change(kind="project_cut" if cuts else "project", id=project_id)
