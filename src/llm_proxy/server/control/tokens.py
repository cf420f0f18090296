"""/manage/tokens."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from llm_proxy.errors import Refusal
from llm_proxy.grants import Scope
from llm_proxy.secrets import Secret, mask, new_token, token_digest
from llm_proxy.server.channel import Change
from llm_proxy.server.control import rules
from llm_proxy.server.control.answers import invalid, json_answer, missing, nothing
from llm_proxy.server.control.context import ControlContext
from llm_proxy.server.control.own_limits import limit_changes, new_limits, shown_limits
from llm_proxy.server.control.requests import Query, read_json
from llm_proxy.server.control.scopes import ScopeBody, scope_changes
from llm_proxy.store.database import Store
from llm_proxy.store.page import Page
from llm_proxy.store.projects import get_project
from llm_proxy.store.scopes import ScopeChanges
from llm_proxy.store.tokens import (
    Token,
    TokenChanges,
    create_token,
    find_token,
    get_token,
    list_tokens,
    revoke_token,
    rotate_token,
    update_token,
)


class _NewToken(msgspec.Struct, forbid_unknown_fields=True):
    project_id: str
    duration_minutes: int | UnsetType = UNSET
    expires_at: datetime | None | UnsetType = UNSET
    not_before: datetime | None = None
    idle_timeout_seconds: int | None = None
    max_requests: int | None = None
    name: str | None = None
    scope: ScopeBody | None = None
    rate_limit: str | None = None
    rate_burst: int | None = None
    max_concurrent: int | None = None


class _TokenPatch(msgspec.Struct, forbid_unknown_fields=True):
    name: str | None | UnsetType = UNSET
    is_active: bool | UnsetType = UNSET
    cancel_running: bool = False
    max_requests: int | None | UnsetType = UNSET
    expires_at: datetime | None | UnsetType = UNSET
    not_before: datetime | None | UnsetType = UNSET
    idle_timeout_seconds: int | None | UnsetType = UNSET
    scope: ScopeBody | None | UnsetType = UNSET
    rate_limit: str | None | UnsetType = UNSET
    rate_burst: int | None | UnsetType = UNSET
    max_concurrent: int | None | UnsetType = UNSET


class _Rotation(msgspec.Struct, forbid_unknown_fields=True):
    grace_seconds: int = 0


class Tokens:
    def __init__(self, context: ControlContext) -> None:
        self._context = context

    async def list(self, request: Request) -> Response:
        query = Query(request, known=("project_id", "active_only", "digest", "limit", "cursor"))
        if (digest := query.text("digest")) is not None:
            page = await self._with_digest(rules.digest(digest))
        else:
            page = await self._context.store.run(
                list_tokens,
                limit=query.limit,
                after=query.after,
                project_id=query.text("project_id"),
                usable_at=self._context.now() if query.flag("active_only") else None,
            )
        return json_answer([_shown(t) for t in page.items], headers=query.page_headers(page))

    async def _with_digest(self, digest: bytes) -> Page[Token]:
        token = await self._context.store.run(find_token, digest)
        items = [] if token is None else [token]
        return Page(items=items, total=len(items), after=None)

    async def create(self, request: Request) -> Response:
        body = await read_json(request, _NewToken)
        now = self._context.now()
        not_before = rules.not_before(body.not_before)
        scope = scope_changes(body.scope, self._context.apis()) or ScopeChanges()
        secret = new_token()
        token = Token(
            id=str(uuid.uuid4()),
            name=rules.token_name(body.name),
            masked=mask(secret.reveal()),
            project_id=body.project_id,
            expires_at=_end(body, now, not_before),
            is_active=True,
            deactivated_at=None,
            max_requests=rules.max_requests(body.max_requests),
            request_count=0,
            cache_hit_count=0,
            created_at=now,
            last_used_at=None,
            not_before=not_before,
            idle_timeout_s=rules.idle_timeout_seconds(body.idle_timeout_seconds),
            scope=scope.applied_to(Scope()),
            limits=new_limits(body),
        )
        await self._context.commit(_changed(token.id), _issue, token, _digest(secret))
        location = {"Location": f"/manage/tokens/{token.id}"}
        return json_answer(_shown_once(token, secret), status=201, headers=location)

    async def get(self, request: Request) -> Response:
        token = await self._context.store.run(get_token, request.path_params["id"])
        return json_answer(_shown(_found(token)))

    async def update(self, request: Request) -> Response:
        token_id = request.path_params["id"]
        changes = _changes(await read_json(request, _TokenPatch), self._context.apis())
        changed = _changed(token_id, cuts=changes.cuts_running)
        token = await self._context.commit(
            changed, _update, token_id, changes, at=self._context.now()
        )
        return json_answer(_shown(_found(token)))

    async def revoke(self, request: Request) -> Response:
        token_id = request.path_params["id"]
        query = Query(request, known=("cancel_running",))
        cuts = query.flag("cancel_running")
        query.note_flags()
        was_there = await self._context.commit(
            _changed(token_id, cuts=cuts),
            revoke_token,
            token_id,
            at=self._context.now(),
            cuts_running=cuts,
        )
        if not was_there:
            raise missing("token")
        return nothing()

    async def rotate(self, request: Request) -> Response:
        body = await read_json(request, _Rotation, may_be_empty=True)
        token_id = request.path_params["id"]
        secret = new_token()
        now = self._context.now()
        until = now + timedelta(seconds=rules.grace_seconds(body.grace_seconds))

        def rotate(store: Store) -> Token:
            with store.writing():
                _refuse_unusable(_found(get_token(store, token_id)), now)
                rotated = rotate_token(
                    store,
                    token_id,
                    digest=_digest(secret),
                    masked=mask(secret.reveal()),
                    previous_valid_until=until,
                    at=now,
                )
                return _found(rotated)

        token = await self._context.commit(_changed(token_id), rotate)
        return json_answer({**_shown_once(token, secret), "previous_valid_until": until})


def _issue(store: Store, token: Token, digest: bytes) -> None:
    with store.writing():
        project = get_project(store, token.project_id)
        if project is None:
            raise missing("project")
        if not project.is_active:
            raise Refusal(
                "project_inactive",
                "tokens can't be made for an inactive project; activate it first",
            )
        create_token(store, token, digest=digest)


def _end(body: _NewToken, now: datetime, not_before: datetime | None) -> datetime | None:
    """Exactly one of `duration_minutes`, from when it is valid, and `expires_at` says it."""
    if (body.duration_minutes is UNSET) == (body.expires_at is UNSET):
        raise invalid("duration_minutes", "is required, or expires_at instead (null: never)")
    if isinstance(body.duration_minutes, UnsetType):
        assert not isinstance(body.expires_at, UnsetType)
        end = rules.future_expires_at(body.expires_at, now)
        rules.check_order(not_before, end)
        return end
    lifetime = timedelta(minutes=rules.duration_minutes(body.duration_minutes))
    return max(now, not_before or now) + lifetime


def _update(store: Store, token_id: str, changes: TokenChanges, *, at: datetime) -> Token | None:
    with store.writing():
        token = update_token(store, token_id, changes, at=at)
        if token is not None and not (changes.not_before is changes.expires_at is UNSET):
            rules.check_order(token.not_before, token.expires_at)
        return token


def _changes(body: _TokenPatch, apis: Sequence[str]) -> TokenChanges:
    if body.cancel_running and body.is_active is not False:
        raise invalid("cancel_running", "requires is_active to be false in the same request")
    idle = body.idle_timeout_seconds
    changes = TokenChanges(
        name=UNSET if body.name is UNSET else rules.token_name(body.name),
        is_active=body.is_active,
        max_requests=UNSET if body.max_requests is UNSET else rules.max_requests(body.max_requests),
        expires_at=UNSET if body.expires_at is UNSET else rules.expires_at(body.expires_at),
        not_before=UNSET if body.not_before is UNSET else rules.not_before(body.not_before),
        idle_timeout_s=UNSET if idle is UNSET else rules.idle_timeout_seconds(idle),
        scope=UNSET if body.scope is UNSET else scope_changes(body.scope, apis),
        limits=limit_changes(body),
        cuts_running=body.cancel_running,
    )
    if changes == TokenChanges():
        raise Refusal(
            "invalid_request",
            "nothing to update; send any of is_active, name, max_requests, expires_at, "
            "not_before, idle_timeout_seconds, scope, rate_limit, rate_burst, max_concurrent",
        )
    return changes


def _refuse_unusable(token: Token, now: datetime) -> None:
    if not token.is_active:
        raise Refusal("conflict", "the token is revoked; activate it first, or make a new one")
    if token.expires_at is not None and token.expires_at <= now:
        raise Refusal("conflict", "the token has expired; set a new expires_at, or make a new one")
    if token.idle_expires_at is not None and token.idle_expires_at <= now:
        raise Refusal("conflict", "the token has expired unused; send is_active true to revive it")


def _shown(token: Token) -> dict[str, Any]:
    return {
        "id": token.id,
        "name": token.name,
        "token": token.masked,
        "project_id": token.project_id,
        "expires_at": token.expires_at,
        "not_before": token.not_before,
        "idle_timeout_seconds": token.idle_timeout_s,
        "idle_expires_at": token.idle_expires_at,
        "is_active": token.is_active,
        "deactivated_at": token.deactivated_at,
        "request_count": token.request_count,
        "max_requests": token.max_requests,
        "created_at": token.created_at,
        "last_used_at": token.last_used_at,
        "cache_hit_count": token.cache_hit_count,
        "scope": token.scope if token.scope else None,
        **shown_limits(token.limits),
    }


def _shown_once(token: Token, secret: Secret) -> dict[str, Any]:
    return {
        "id": token.id,
        "token": secret.reveal(),
        "project_id": token.project_id,
        "expires_at": token.expires_at,
        "max_requests": token.max_requests,
    }


def _digest(secret: Secret) -> bytes:
    return token_digest(secret.reveal().encode())


def _found(token: Token | None) -> Token:
    if token is None:
        raise missing("token")
    return token


def _changed(token_id: str, *, cuts: bool = False) -> Change:
    return Change(kind="token_cut" if cuts else "token", id=token_id)
