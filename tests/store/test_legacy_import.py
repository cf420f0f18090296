from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from llm_proxy.errors import Conflict
from llm_proxy.secrets import Secret
from llm_proxy.store.changes import changes_after, last_change_id
from llm_proxy.store.database import Store
from llm_proxy.store.legacy import LegacyData, LegacyProject, LegacyToken
from llm_proxy.store.legacy_import import Imported, has_legacy_tokens, import_legacy
from llm_proxy.store.projects import Project, get_project, list_projects
from llm_proxy.store.tokens import find_token, get_token, list_tokens

THEN = datetime(2025, 1, 2, 3, 4, 5, 678901, UTC)

PROJECT = LegacyProject(
    id="p1",
    name="first",
    api_key=Secret("sk-upstream-0123456789"),
    is_active=True,
    deactivated_at=None,
    created_at=THEN,
    updated_at=THEN,
)


def token(number: int, **fields: object) -> LegacyToken:
    made = LegacyToken(
        id=f"t{number}",
        digest=hashlib.sha256(b"%d" % number).hexdigest(),
        masked="sk-AZR0…0Pqw",
        project_id="p1",
        expires_at=THEN,
        is_active=False,
        deactivated_at=THEN,
        request_count=7,
        max_requests=10,
        cache_hit_count=3,
        created_at=THEN,
        last_used_at=THEN,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def data(*tokens: LegacyToken, project: LegacyProject = PROJECT) -> LegacyData:
    return LegacyData(projects=[project], tokens=list(tokens), unusable=0)


def test_projects_and_tokens_are_taken_over_as_they_are(store: Store, now: datetime) -> None:
    assert import_legacy(store, data(token(1)), api="openai", at=now) == Imported(1, 0, 1, 0)
    project = get_project(store, "p1")
    assert project is not None
    assert (project.name, project.is_active, project.created_at) == ("first", True, THEN)
    assert project.api_keys == {"openai": Secret("sk-upstream-0123456789")}
    found = find_token(store, hashlib.sha256(b"1").digest())
    assert found is not None
    assert found == get_token(store, "t1")
    assert (found.project_id, found.masked, found.is_active) == ("p1", "sk-AZR0…0Pqw", False)
    assert (found.request_count, found.max_requests, found.cache_hit_count) == (7, 10, 3)
    times = (found.expires_at, found.deactivated_at, found.created_at, found.last_used_at)
    assert times == (THEN,) * 4


def test_once_more_changes_nothing(store: Store, now: datetime) -> None:
    import_legacy(store, data(token(1)), api="openai", at=now)
    last_id = last_change_id(store)
    again = data(token(1, request_count=0), token(2))
    assert import_legacy(store, again, api="anthropic", at=now) == Imported(0, 1, 1, 1)
    assert list_projects(store, limit=9).items[0].api_keys.keys() == {"openai"}
    kept = get_token(store, "t1")
    assert kept is not None
    assert kept.request_count == 7
    _, changes = changes_after(store, last_id)
    assert [tuple(change) for change in changes] == [("project", "p1"), ("legacy", "")]
    assert import_legacy(store, again, api="openai", at=now) == Imported(0, 1, 0, 2)


def test_a_project_without_a_key_has_none(store: Store, now: datetime) -> None:
    import_legacy(store, data(project=replace(PROJECT, api_key=None)), api="openai", at=now)
    assert list_projects(store, limit=9).items[0].api_keys == {}


def test_a_token_that_appears_twice_is_taken_once(store: Store, now: datetime) -> None:
    twice = data(token(1), token(1, id="other"))
    assert import_legacy(store, twice, api="openai", at=now) == Imported(1, 0, 1, 1)


def test_a_name_that_is_taken_undoes_everything(
    store: Store, now: datetime, add_project: Callable[..., Project]
) -> None:
    add_project(name="second")
    taken = replace(PROJECT, id="p2", name="second")
    both = LegacyData(projects=[PROJECT, taken], tokens=[token(1)], unusable=0)
    with pytest.raises(Conflict, match="'second'"):
        import_legacy(store, both, api="openai", at=now)
    assert [project.name for project in list_projects(store, limit=9).items] == ["second"]
    assert list_tokens(store, limit=9).items == []
    assert not has_legacy_tokens(store)


def test_more_tokens_than_one_statement_takes(store: Store, now: datetime) -> None:
    many = data(*(token(number) for number in range(1201)))
    assert import_legacy(store, many, api="openai", at=now).tokens == 1201
    assert list_tokens(store, limit=1).total == 1201
    assert last_change_id(store) <= 3  # not one for each


def test_the_database_knows_that_it_has_tokens_of_the_older_form(
    store: Store, now: datetime
) -> None:
    import_legacy(store, data(), api="openai", at=now)
    assert not has_legacy_tokens(store)
    import_legacy(store, data(token(1)), api="openai", at=now)
    assert has_legacy_tokens(store)
