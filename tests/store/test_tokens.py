from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from llm_proxy.errors import StoreError
from llm_proxy.store.database import Store
from llm_proxy.store.projects import Project
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
        name="für CI", expires_at=now + timedelta(days=1), max_requests=2**53 - 1
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
