from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.store.changes import changes_after, last_change_id
from llm_proxy.store.database import Store
from llm_proxy.store.expiry import IDLE_MARGIN_S, deactivate_expired, idle_end
from llm_proxy.store.grants import load_grant
from llm_proxy.store.projects import Project
from llm_proxy.store.tokens import Token, TokenChanges, get_token, list_tokens, update_token

AddToken = Callable[..., tuple[Token, bytes]]
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


def usable(store: Store, at: datetime) -> set[str]:
    return {token.id for token in list_tokens(store, limit=99, usable_at=at).items}


def found(store: Store, token_id: str) -> Token:
    token = get_token(store, token_id)
    assert token is not None
    return token


TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
LATER = st.timedeltas(timedelta(0), timedelta(days=9999))


@given(TIMES, LATER | st.none(), LATER | st.none(), st.integers(60, 10**8))
def test_idleness_counts_from_the_last_moment_that_mattered(
    created: datetime, begins: timedelta | None, used: timedelta | None, idle_s: int
) -> None:
    moments = [created + later for later in (begins, used) if later is not None]
    end = idle_end(
        created_at=created,
        not_before=None if begins is None else created + begins,
        last_used_at=None if used is None else created + used,
        idle_timeout_s=idle_s,
    )
    assert end == max([created, *moments]) + timedelta(seconds=idle_s)


def test_without_a_timeout_nothing_is_idle() -> None:
    now = datetime.now(UTC)
    assert idle_end(created_at=now, not_before=None, last_used_at=None, idle_timeout_s=None) is None


def test_usable_tokens_are_neither_early_nor_idle(
    store: Store, add_project: Callable[..., Project], add_token: AddToken, now: datetime
) -> None:
    project = add_project().id

    def add(**fields: object) -> str:
        return add_token(project_id=project, **fields)[0].id

    always = add()
    later = add(not_before=now + MINUTE)
    short, long = add(idle_timeout_s=60), add(idle_timeout_s=120)
    used = add(idle_timeout_s=60, last_used_at=now + MINUTE)
    early = add(idle_timeout_s=60, not_before=now + MINUTE, last_used_at=None)
    add(is_active=False, idle_timeout_s=60)
    assert usable(store, now) == {always, short, long, used}
    just_before = now + MINUTE - timedelta(microseconds=1)
    assert usable(store, just_before) == {always, short, long, used}
    assert usable(store, now + MINUTE) == {always, later, long, used, early}
    assert usable(store, now + 2 * MINUTE) == {always, later}


def test_expired_tokens_are_deactivated_as_of_their_end(
    store: Store, add_token: AddToken, now: datetime
) -> None:
    ended, digest = add_token(expires_at=now - DAY)
    lasting = [add_token(expires_at=now + MINUTE)[0], add_token()[0]]
    seen = last_change_id(store)
    assert deactivate_expired(store, at=now, limit=9) == [ended.id]
    token = found(store, ended.id)
    assert (token.is_active, token.deactivated_at) == (False, now - DAY)
    assert token.expires_at == ended.expires_at
    assert [change.id for change in changes_after(store, seen)[1]] == [ended.id]
    assert all(found(store, token.id).is_active for token in lasting)
    assert deactivate_expired(store, at=now, limit=9) == []
    grant = load_grant(store, digest)
    assert grant is not None
    assert grant.is_active  # it is to be refused as expired, not as revoked
    assert grant.expires_at == (now - DAY).timestamp()


def test_idle_tokens_are_deactivated_once_every_use_must_be_known(
    store: Store, add_token: AddToken, now: datetime
) -> None:
    token, digest = add_token(idle_timeout_s=3600)
    other = add_token(idle_timeout_s=3600, last_used_at=now + MINUTE)[0]
    end = now + timedelta(hours=1)
    margin = timedelta(seconds=IDLE_MARGIN_S)
    early = end + margin - timedelta(microseconds=1)
    assert deactivate_expired(store, at=early, limit=9) == []
    assert deactivate_expired(store, at=end + margin, limit=9) == [token.id]
    assert found(store, token.id).deactivated_at == end
    assert found(store, other.id).is_active
    grant = load_grant(store, digest)
    assert grant is not None
    assert (grant.is_active, grant.expires_at) == (True, end.timestamp())


def test_of_two_ends_the_first_counts(store: Store, add_token: AddToken, now: datetime) -> None:
    token = add_token(idle_timeout_s=3600, expires_at=now + MINUTE)[0]
    deactivate_expired(store, at=now + DAY, limit=9)
    assert found(store, token.id).deactivated_at == now + MINUTE


def test_a_clean_up_is_done_in_parts(store: Store, add_token: AddToken, now: datetime) -> None:
    ids = {add_token(expires_at=now)[0].id for _ in range(5)}
    parts = [deactivate_expired(store, at=now, limit=2) for _ in range(4)]
    assert [len(part) for part in parts] == [2, 2, 1, 0]
    assert set().union(*parts) == ids


@pytest.mark.parametrize("is_cleaned_up", [False, True])
def test_an_idle_token_that_is_activated_starts_anew(
    store: Store, add_token: AddToken, now: datetime, is_cleaned_up: bool
) -> None:
    token, digest = add_token(idle_timeout_s=60)
    at = now + DAY
    if is_cleaned_up:
        assert deactivate_expired(store, at=at, limit=9) == [token.id]
    update_token(store, token.id, TokenChanges(is_active=True), at=at)
    assert usable(store, at) == {token.id}
    assert found(store, token.id).idle_expires_at == at + MINUTE
    assert deactivate_expired(store, at=at + MINUTE, limit=9) == []
    grant = load_grant(store, digest)
    assert grant is not None
    assert (grant.is_active, grant.not_before) == (True, at.timestamp())


def test_an_activated_token_that_is_not_idle_keeps_its_times(
    store: Store, add_token: AddToken, now: datetime
) -> None:
    token = add_token(idle_timeout_s=3600, is_active=False, deactivated_at=now)[0]
    update_token(store, token.id, TokenChanges(is_active=True), at=now + MINUTE)
    assert found(store, token.id).not_before is None
