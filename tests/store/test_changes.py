from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from llm_proxy.errors import Conflict
from llm_proxy.store.changes import Change, append_change, changes_after, last_change_id
from llm_proxy.store.database import Store
from llm_proxy.store.projects import (
    Project,
    ProjectChanges,
    delete_project,
    update_project,
)
from llm_proxy.store.tokens import (
    Token,
    TokenChanges,
    revoke_project_tokens,
    revoke_token,
    rotate_token,
    update_token,
)


def test_a_reader_sees_each_change_once_and_in_order(store: Store, now: datetime) -> None:
    assert changes_after(store, 0) == (0, [])
    assert last_change_id(store) == 0
    with store.writing() as database:
        append_change(database, "token", "t", now)
        append_change(database, "project", "p", now)
    last, changes = changes_after(store, 0)
    assert changes == [Change("token", "t"), Change("project", "p")]
    assert last == last_change_id(store)
    assert changes_after(store, last) == (last, [])


def test_many_changes_come_in_parts(store: Store, now: datetime) -> None:
    with store.writing() as database:
        for number in range(1500):
            append_change(database, "token", str(number), now)
    last, first = changes_after(store, 0)
    _, second = changes_after(store, last)
    assert [change.id for change in first + second] == [str(number) for number in range(1500)]


def test_old_changes_are_forgotten_in_time(store: Store, now: datetime) -> None:
    with store.writing() as database:
        append_change(database, "token", "old", now)
        database.sql("INSERT INTO changes VALUES (200998, 'token', 'later', 't')")
        database.number_from("changes", 200998)
        append_change(database, "token", "recent", now)
        append_change(database, "token", "newest", now)
    assert [change.id for change in changes_after(store, 0)[1]] == [
        "later",
        "recent",
        "newest",
    ]


def test_every_mutation_is_announced(
    store: Store, add_token: Callable[..., tuple[Token, bytes]], now: datetime
) -> None:
    token, _ = add_token()
    project_change = Change("project", token.project_id)
    token_change = Change("token", token.id)
    assert changes_after(store, 0)[1] == [project_change, token_change]
    mutations: list[tuple[Callable[[], Any], Change]] = [
        (
            lambda: update_token(store, token.id, TokenChanges(max_requests=3), at=now),
            token_change,
        ),
        (
            lambda: rotate_token(
                store, token.id, digest=b"2" * 32, masked="m", previous_valid_until=now, at=now
            ),
            token_change,
        ),
        (lambda: revoke_token(store, token.id, at=now), token_change),
        (
            lambda: update_token(store, token.id, TokenChanges(is_active=True), at=now),
            token_change,
        ),
        (lambda: revoke_project_tokens(store, token.project_id, at=now), project_change),
        (
            lambda: update_project(
                store, token.project_id, ProjectChanges(is_active=False), at=now
            ),
            project_change,
        ),
        (lambda: delete_project(store, token.project_id, at=now, force=False), project_change),
    ]
    for mutate, expected in mutations:
        before = last_change_id(store)
        mutate()
        assert changes_after(store, before)[1] == [expected]


def test_what_changes_nothing_is_not_announced(
    store: Store, add_token: Callable[..., tuple[Token, bytes]], now: datetime
) -> None:
    token, _ = add_token()
    before = last_change_id(store)
    update_project(store, token.project_id, ProjectChanges(), at=now)
    update_project(store, "nobody", ProjectChanges(name="x"), at=now)
    update_token(store, token.id, TokenChanges(is_active=True), at=now)
    update_token(store, "nobody", TokenChanges(name="x"), at=now)
    revoke_project_tokens(store, "nobody", at=now)
    delete_project(store, "nobody", at=now, force=True)
    assert changes_after(store, before)[1] == []


def test_a_change_that_is_refused_is_not_announced(
    store: Store, add_project: Callable[..., Project], now: datetime
) -> None:
    add_project(name="taken")
    project = add_project(name="mine")
    before = last_change_id(store)
    with pytest.raises(Conflict):
        update_project(store, project.id, ProjectChanges(name="taken", is_active=False), at=now)
    assert changes_after(store, before)[1] == []
