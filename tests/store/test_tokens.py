from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from llm_proxy.errors import StoreError
from llm_proxy.grants import Scope
from llm_proxy.limits import LimitOverride
from llm_proxy.store.changes import Change, changes_after, last_change_id
from llm_proxy.store.database import Store
from llm_proxy.store.own_limits import LimitChanges
from llm_proxy.store.projects import Project
from llm_proxy.store.scopes import ScopeChanges
from llm_proxy.store.tokens import (
    RevokedTokens,
    Token,
    TokenChanges,
    find_token,
    get_token,
    list_tokens,
    revoke_project_tokens,
    revoke_token,
    rotate_token,
    update_token,
)

AddToken = Callable[..., tuple[Token, bytes]]


def test_a_token_comes_back_as_it_was_created(
    store: Store, add_token: AddToken, now: datetime
) -> None:
    token, digest = add_token(
        name="für CI",
        expires_at=now + timedelta(days=1),
        max_requests=2**53 - 1,
        not_before=now,
        idle_timeout_s=3600,
        scope=Scope(models=("gpt-4*",)),
        limits=LimitOverride(rate_limit="60/min", rate_burst=2, max_concurrent=3),
    )
    assert get_token(store, token.id) == token
    assert find_token(store, digest) == token
    assert get_token(store, "nobody") is None
    assert find_token(store, b"?" * 32) is None


def test_a_token_needs_its_project(add_token: AddToken) -> None:
    with pytest.raises(StoreError, match="(?i)foreign key"):
        add_token(project_id="nobody")


def test_a_list_can_be_of_one_project_or_of_usable_tokens(
    store: Store, add_project: Callable[..., Project], add_token: AddToken, now: datetime
) -> None:
    project = add_project()
    usable = add_token(project_id=project.id)[0]
    add_token(project_id=project.id, expires_at=now)
    add_token(project_id=project.id, is_active=False)
    elsewhere = add_token(expires_at=now + timedelta(microseconds=1))[0]
    assert list_tokens(store, limit=9).total == 4
    assert list_tokens(store, limit=9, project_id=project.id).total == 3
    of_project = list_tokens(store, limit=9, project_id=project.id, usable_at=now)
    assert (of_project.items, of_project.total) == ([usable], 1)
    everywhere = list_tokens(store, limit=9, usable_at=now)
    assert {token.id for token in everywhere.items} == {usable.id, elsewhere.id}


def test_an_update_changes_what_it_names_and_nothing_else(
    store: Store, add_token: AddToken, now: datetime
) -> None:
    token, _ = add_token(name="before", max_requests=5, expires_at=now)
    later = now + timedelta(days=9)
    updated = update_token(store, token.id, TokenChanges(name="after"), at=now)
    assert updated is not None
    assert (updated.name, updated.max_requests, updated.expires_at) == ("after", 5, now)
    updated = update_token(store, token.id, TokenChanges(expires_at=later), at=now)
    assert updated is not None
    assert (updated.max_requests, updated.expires_at) == (5, later)
    updated = update_token(
        store, token.id, TokenChanges(max_requests=None, expires_at=None), at=now
    )
    assert updated == get_token(store, token.id)
    assert updated is not None
    assert (updated.name, updated.max_requests, updated.expires_at) == ("after", None, None)
    assert update_token(store, "nobody", TokenChanges(name="x"), at=now) is None


def test_an_update_narrows_and_limits(store: Store, add_token: AddToken, now: datetime) -> None:
    token, _ = add_token(scope=Scope(apis=("openai",)), limits=LimitOverride(max_concurrent=1))

    def update(**changes: Any) -> Token:
        updated = update_token(store, token.id, TokenChanges(**changes), at=now)
        assert updated == get_token(store, token.id)
        assert updated is not None
        return updated

    assert update(not_before=now, idle_timeout_s=60).idle_expires_at == now + timedelta(minutes=1)
    assert update(not_before=None, idle_timeout_s=None).idle_expires_at is None
    narrowed = update(scope=ScopeChanges(models=("gpt-4",)))
    assert narrowed.scope == Scope(apis=("openai",), models=("gpt-4",))
    assert update(name="x").scope == narrowed.scope
    assert update(scope=None).scope == Scope()
    limited = update(limits=LimitChanges(rate_limit="1/s"))
    assert limited.limits == LimitOverride(rate_limit="1/s", max_concurrent=1)
    assert update(limits=LimitChanges(max_concurrent=None)).limits.max_concurrent is None


@pytest.mark.parametrize("is_active", [True, False])
def test_a_cut_is_told_even_of_a_token_that_was_revoked_before(
    store: Store, add_token: AddToken, now: datetime, is_active: bool
) -> None:
    token, _ = add_token(is_active=is_active)
    seen = last_change_id(store)
    assert revoke_token(store, token.id, at=now, cuts_running=True)
    assert changes_after(store, seen)[1] == [Change("token_cut", token.id)]


@pytest.mark.parametrize(("cuts", "kind"), [(False, "project"), (True, "project_cut")])
def test_revoking_all_can_cut_what_runs(
    store: Store, add_token: AddToken, now: datetime, cuts: bool, kind: str
) -> None:
    token, _ = add_token()
    seen = last_change_id(store)
    revoke_project_tokens(store, token.project_id, at=now, cuts_running=cuts)
    assert changes_after(store, seen)[1] == [Change(kind, token.project_id)]
    again = last_change_id(store)
    revoke_project_tokens(store, token.project_id, at=now, cuts_running=cuts)
    assert len(changes_after(store, again)[1]) == cuts


def test_revoking_is_dated_once_and_can_be_undone(
    store: Store, add_token: AddToken, now: datetime
) -> None:
    token, _ = add_token()
    assert revoke_token(store, token.id, at=now)
    assert revoke_token(store, token.id, at=now + timedelta(hours=1))
    revoked = get_token(store, token.id)
    assert revoked is not None
    assert (revoked.is_active, revoked.deactivated_at) == (False, now)
    restored = update_token(store, token.id, TokenChanges(is_active=True), at=now)
    assert restored == token
    assert not revoke_token(store, "nobody", at=now)


def test_all_tokens_of_a_project_are_revoked_at_once(
    store: Store, add_project: Callable[..., Project], add_token: AddToken, now: datetime
) -> None:
    project = add_project()
    earlier = now - timedelta(days=1)
    tokens = [add_token(project_id=project.id)[0] for _ in range(3)]
    old, _ = add_token(project_id=project.id, is_active=False, deactivated_at=earlier)
    bystander, _ = add_token()
    assert revoke_project_tokens(store, project.id, at=now) == RevokedTokens(3, 1, 4)
    assert revoke_project_tokens(store, project.id, at=now) == RevokedTokens(0, 4, 4)
    for token, expected in [(tokens[0], now), (old, earlier), (bystander, None)]:
        found = get_token(store, token.id)
        assert found is not None
        assert found.deactivated_at == expected


def test_a_rotation_changes_the_secret_alone(
    store: Store, add_token: AddToken, now: datetime
) -> None:
    token, old = add_token(max_requests=5)
    rotated = rotate_token(
        store, token.id, digest=b"n" * 32, masked="sk-new…", previous_valid_until=now, at=now
    )
    assert rotated is not None
    assert rotated.masked == "sk-new…"
    assert (rotated.id, rotated.max_requests, rotated.created_at) == (token.id, 5, now)
    assert find_token(store, b"n" * 32) == find_token(store, old) == rotated
    assert (
        rotate_token(store, "nobody", digest=b"x" * 32, masked="", previous_valid_until=now, at=now)
        is None
    )
