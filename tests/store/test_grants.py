from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from llm_proxy.errors import StoreError
from llm_proxy.grants import Lease, LeaseUse, Scope, TokenGrant
from llm_proxy.limits import LimitOverride
from llm_proxy.secrets import Secret
from llm_proxy.store.database import Store
from llm_proxy.store.grants import load_grant, warns_at
from llm_proxy.store.leases import settle_leases, take_lease
from llm_proxy.store.projects import Project, ProjectChanges, delete_project, update_project
from llm_proxy.store.tokens import (
    Token,
    TokenChanges,
    get_token,
    revoke_token,
    rotate_token,
    update_token,
)

AddToken = Callable[..., tuple[Token, bytes]]


def test_a_grant_holds_all_that_a_gateway_needs(
    store: Store, add_project: Callable[..., Project], add_token: AddToken, now: datetime
) -> None:
    keys = {"openai": Secret("sk-one"), "anthropic": Secret("sk-ant-two")}
    project_limits = LimitOverride(rate_limit="10/s")
    project = add_project(api_keys=keys, limits=project_limits)
    scope = Scope(apis=("openai",), networks=("10.0.0.0/8",))
    limits = LimitOverride(rate_limit="60/min", rate_burst=3, max_concurrent=0)
    token, digest = add_token(
        project_id=project.id,
        max_requests=7,
        not_before=now + timedelta(hours=1),
        expires_at=now + timedelta(hours=10),
        idle_timeout_s=600,
        scope=scope,
        limits=limits,
    )
    assert load_grant(store, digest) == TokenGrant(
        token_id=token.id,
        project_id=project.id,
        is_active=True,
        project_is_active=True,
        not_before=now.timestamp() + 3600,
        expires_at=now.timestamp() + 36_000,
        warns_at=now.timestamp() + 32_400,
        idle_timeout=600,
        last_used_at=now.timestamp(),
        max_requests=7,
        scope=scope,
        token_limits=limits,
        project_limits=project_limits,
        upstream_keys=keys,
    )


def test_an_unknown_digest_has_no_grant(store: Store, add_token: AddToken) -> None:
    add_token()
    assert load_grant(store, b"?" * 32) is None


def test_a_token_without_limits_has_none(store: Store, add_token: AddToken) -> None:
    grant = load_grant(store, add_token()[1])
    assert grant is not None
    assert (grant.expires_at, grant.max_requests) == (None, None)
    assert (grant.not_before, grant.idle_timeout, grant.warns_at) == (None, None, None)
    assert not grant.scope
    assert grant.token_limits == grant.project_limits == LimitOverride()


def test_a_grant_knows_the_last_use(store: Store, add_token: AddToken, now: datetime) -> None:
    grant = load_grant(store, add_token(last_used_at=now + timedelta(minutes=1))[1])
    assert grant is not None
    assert grant.last_used_at == now.timestamp() + 60


@pytest.mark.parametrize(
    ("lifetime", "warned"), [(100.0, 10.0), (864_000.0, 86_400.0), (9e9, 86_400.0), (-5.0, 0.0)]
)
def test_the_end_is_announced_a_tenth_of_the_life_before_but_a_day_at_most(
    lifetime: float, warned: float
) -> None:
    assert warns_at(1e9, 1e9 + lifetime) == 1e9 + lifetime - warned


def test_a_revoked_token_is_revoked_however_it_would_have_ended(
    store: Store, add_token: AddToken, now: datetime
) -> None:
    token, digest = add_token(expires_at=now, idle_timeout_s=60)
    revoke_token(store, token.id, at=now + timedelta(seconds=1))
    grant = load_grant(store, digest)
    assert grant is not None
    assert not grant.is_active


def test_a_scope_that_is_not_understood_grants_nothing(store: Store, add_token: AddToken) -> None:
    token, digest = add_token()
    with store.writing() as database:
        database.sql("UPDATE tokens SET scope = ?", ('{"regions": ["eu"]}',))
    with pytest.raises(StoreError, match=token.id):
        load_grant(store, digest)


def test_revoked_tokens_and_inactive_projects_are_told_apart(
    store: Store, add_token: AddToken, now: datetime
) -> None:
    token, digest = add_token()
    update_project(store, token.project_id, ProjectChanges(is_active=False), at=now)
    grant = load_grant(store, digest)
    assert grant is not None
    assert (grant.is_active, grant.project_is_active) == (True, False)
    revoke_token(store, token.id, at=now)
    grant = load_grant(store, digest)
    assert grant is not None
    assert (grant.is_active, grant.project_is_active) == (False, False)


def test_a_project_without_keys_grants_none(
    store: Store, add_token: AddToken, now: datetime
) -> None:
    token, digest = add_token()
    update_project(store, token.project_id, ProjectChanges(api_keys={"openai": None}), at=now)
    grant = load_grant(store, digest)
    assert grant is not None
    assert grant.upstream_keys == {}


def test_a_token_of_a_deleted_project_is_unknown(
    store: Store, add_token: AddToken, now: datetime
) -> None:
    token, digest = add_token()
    delete_project(store, token.project_id, at=now, force=True)
    assert load_grant(store, digest) is None


@pytest.mark.parametrize(
    ("expires_in", "grace", "expected"),
    [(None, 60, 60), (30, 60, 30), (90, 60, 60), (None, 0, 0)],
)
def test_a_rotated_away_token_lasts_until_the_earlier_end(
    store: Store,
    add_token: AddToken,
    now: datetime,
    expires_in: int | None,
    grace: int,
    expected: int,
) -> None:
    ends = None if expires_in is None else now + timedelta(seconds=expires_in)
    token, old = add_token(expires_at=ends)
    until = now + timedelta(seconds=grace)
    rotate_token(store, token.id, digest=b"n" * 32, masked="m", previous_valid_until=until, at=now)
    before, after = load_grant(store, old), load_grant(store, b"n" * 32)
    assert before is not None and after is not None
    assert before.token_id == after.token_id == token.id
    assert before.expires_at == (now + timedelta(seconds=expected)).timestamp()
    assert after.expires_at == (None if ends is None else ends.timestamp())


def test_after_two_rotations_the_first_secret_is_unknown(
    store: Store, add_token: AddToken, now: datetime
) -> None:
    token, first = add_token()
    until = now + timedelta(days=1)
    for secret in (b"2", b"3"):
        rotate_token(
            store, token.id, digest=secret * 32, masked="m", previous_valid_until=until, at=now
        )
    assert load_grant(store, first) is None
    assert load_grant(store, b"2" * 32) is not None
    assert load_grant(store, b"3" * 32) is not None


def test_an_update_never_loses_a_count(store: Store, add_token: AddToken, now: datetime) -> None:
    token, _ = add_token(max_requests=10)
    lease = take_lease(store, token.id, 8, host="h", holder="w", at=now)
    assert isinstance(lease, Lease)
    settle_leases(store, [LeaseUse(lease.id, 2, 0.0)])
    update_token(store, token.id, TokenChanges(max_requests=20, is_active=False), at=now)
    found = get_token(store, token.id)
    assert found is not None
    assert (found.request_count, found.max_requests) == (2, 20)
