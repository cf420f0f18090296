from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from llm_proxy.errors import Conflict, StoreError
from llm_proxy.limits import LimitOverride
from llm_proxy.secrets import Cipher, Secret, new_encryption_key
from llm_proxy.store.changes import Change, changes_after, last_change_id
from llm_proxy.store.database import Store
from llm_proxy.store.own_limits import LimitChanges
from llm_proxy.store.projects import (
    Project,
    ProjectChanges,
    create_project,
    delete_project,
    get_project,
    update_project,
)
from llm_proxy.store.tokens import Token, get_token, list_tokens

AddProject = Callable[..., Project]
AddToken = Callable[..., tuple[Token, bytes]]


def test_a_project_comes_back_as_it_was_created(store: Store, add_project: AddProject) -> None:
    project = add_project(
        name="Käse 🧀",
        description="for\ntests",
        metadata={"team": {"id": [1, None, "ü"]}},
        api_keys={"openai": Secret("sk-one"), "anthropic": Secret("sk-two")},
    )
    assert get_project(store, project.id) == project
    assert get_project(store, "nobody") is None


def test_upstream_keys_are_in_no_file_in_clear(
    store: Store, add_project: AddProject, tmp_path: Path
) -> None:
    add_project(api_keys={"openai": Secret("sk-canary-in-the-mine-123456")})
    with store.reading() as database:
        assert "canary" not in str(database.sql("SELECT * FROM api_keys"))
    for file in tmp_path.glob("store.db*"):
        assert b"canary" not in file.read_bytes()


def test_a_name_is_given_once(store: Store, add_project: AddProject) -> None:
    add_project(name="taken")
    with pytest.raises(Conflict, match="named 'taken' exists already"):
        add_project(name="taken")
    other = add_project(name="Taken")
    with pytest.raises(Conflict):
        update_project(store, other.id, ProjectChanges(name="taken"), at=other.created_at)


def test_a_project_may_be_given_its_own_name(
    store: Store, add_project: AddProject, now: datetime
) -> None:
    project = add_project(name="mine")
    assert update_project(store, project.id, ProjectChanges(name="mine"), at=now) is not None


def test_an_update_changes_what_it_names_and_nothing_else(
    store: Store, add_project: AddProject, now: datetime
) -> None:
    project = add_project(name="before", description="d", metadata={"a": 1})
    later = now + timedelta(hours=1)
    updated = update_project(store, project.id, ProjectChanges(name="after"), at=later)
    assert updated == get_project(store, project.id)
    assert updated is not None
    assert (updated.name, updated.updated_at) == ("after", later)
    assert (updated.description, updated.metadata) == ("d", {"a": 1})
    assert updated.api_keys == project.api_keys
    emptied = update_project(
        store, project.id, ProjectChanges(description="", metadata={}), at=later
    )
    assert emptied is not None
    assert (emptied.name, emptied.description, emptied.metadata) == ("after", "", {})


def test_keys_are_merged_and_none_removes(
    store: Store, add_project: AddProject, now: datetime
) -> None:
    project = add_project(api_keys={"openai": Secret("one"), "anthropic": Secret("two")})
    keys = {"openai": None, "anthropic": Secret("new"), "local": Secret("three"), "x": None}
    updated = update_project(store, project.id, ProjectChanges(api_keys=keys), at=now)
    assert updated is not None
    assert updated.api_keys == {"anthropic": Secret("new"), "local": Secret("three")}


def test_deactivation_is_dated_and_activation_clears_the_date(
    store: Store, add_project: AddProject, now: datetime
) -> None:
    project = add_project()
    for is_active, at, expected in [
        (False, now, now),
        (False, now + timedelta(hours=1), now),
        (True, now + timedelta(hours=2), None),
    ]:
        updated = update_project(store, project.id, ProjectChanges(is_active=is_active), at=at)
        assert updated is not None
        assert (updated.is_active, updated.deactivated_at) == (is_active, expected)


def test_limits_of_its_own_are_kept_and_changed(
    store: Store, add_project: AddProject, now: datetime
) -> None:
    limits = LimitOverride(rate_limit="60/min", rate_burst=9, max_concurrent=0)
    project = add_project(limits=limits)
    assert get_project(store, project.id) == project
    changes = ProjectChanges(limits=LimitChanges(rate_limit="unlimited", rate_burst=None))
    updated = update_project(store, project.id, changes, at=now)
    assert updated is not None
    assert updated.limits == LimitOverride(rate_limit="unlimited", max_concurrent=0)


def test_a_project_can_be_cut(store: Store, add_project: AddProject, now: datetime) -> None:
    project = add_project()
    seen = last_change_id(store)
    changes = ProjectChanges(is_active=False, cuts_running=True)
    update_project(store, project.id, changes, at=now)
    delete_project(store, project.id, at=now, force=True, cuts_running=True)
    assert changes_after(store, seen)[1] == [Change("project_cut", project.id)] * 2


def test_deactivation_can_revoke_the_tokens(
    store: Store, add_token: AddToken, now: datetime
) -> None:
    token, bystander = add_token()[0], add_token()[0]
    changes = ProjectChanges(is_active=False, revokes_tokens=True)
    update_project(store, token.project_id, changes, at=now)
    revoked, other = get_token(store, token.id), get_token(store, bystander.id)
    assert revoked is not None and other is not None
    assert (revoked.is_active, revoked.deactivated_at) == (False, now)
    assert other.is_active


def test_deletion_is_refused_while_a_token_works(
    store: Store, add_project: AddProject, add_token: AddToken, now: datetime
) -> None:
    project = add_project()
    add_token(project_id=project.id, is_active=False)
    add_token(project_id=project.id, expires_at=now)
    add_token(project_id=project.id, idle_timeout_s=60, created_at=now - timedelta(minutes=1))
    add_token(
        project_id=project.id,
        not_before=now + timedelta(microseconds=1),
        expires_at=now + timedelta(microseconds=2),
    )
    with pytest.raises(Conflict, match="still has 1 active token; revoke"):
        delete_project(store, project.id, at=now, force=False)
    assert list_tokens(store, limit=10, project_id=project.id).total == 4
    assert delete_project(store, project.id, at=now + timedelta(seconds=1), force=False)
    assert list_tokens(store, limit=10).total == 0
    assert get_project(store, project.id) is None


def test_force_deletes_keys_and_tokens_too(
    store: Store, add_token: AddToken, now: datetime
) -> None:
    token, bystander = add_token()[0], add_token()[0]
    assert delete_project(store, token.project_id, at=now, force=True)
    assert get_token(store, token.id) is None
    assert get_token(store, bystander.id) == bystander
    with store.reading() as database:
        assert database.sql("SELECT count(*) FROM api_keys") == [(1,)]
    assert not delete_project(store, token.project_id, at=now, force=True)


def test_without_the_encryption_key_upstream_keys_stay_closed(
    store: Store, add_project: AddProject
) -> None:
    project = add_project()
    blind = Store(store.target, cipher=None)
    blind.open(migrate=False)
    with pytest.raises(StoreError, match="without ENCRYPTION_KEY"):
        get_project(blind, project.id)
    blind.close()


def test_a_key_that_was_tampered_with_is_an_error(store: Store, add_project: AddProject) -> None:
    project = add_project()
    foreign = Cipher(new_encryption_key()).encrypt(Secret("sk-foreign"))
    with store.writing() as database:
        database.sql("UPDATE api_keys SET encrypted = ?", (foreign,))
    with pytest.raises(StoreError, match="can't be decrypted"):
        get_project(store, project.id)


def test_a_creation_that_fails_leaves_nothing(store: Store, add_project: AddProject) -> None:
    project = add_project()
    blind = Store(store.target, cipher=None)
    blind.open(migrate=False)
    twin = Project(
        **{
            **{name: getattr(project, name) for name in Project.__slots__},
            "id": "twin",
            "name": "twin",
        }
    )
    with pytest.raises(StoreError, match="ENCRYPTION_KEY"):
        create_project(blind, twin)
    blind.close()
    assert get_project(store, "twin") is None
