from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

from llm_proxy.errors import Conflict, StoreError
from llm_proxy.secrets import Cipher, Secret, new_encryption_key
from llm_proxy.store.changes import changes_after
from llm_proxy.store.database import Store
from llm_proxy.store.encryption import (
    Encrypted,
    accept_key,
    begin_rotation,
    begun_rotation,
    finish_rotation,
    learn_keys,
    reencrypt,
)
from llm_proxy.store.models import ApiKeyRow
from llm_proxy.store.projects import Project, list_projects

Add = Callable[..., Project]

on_sqlite = pytest.mark.parametrize("database_target", ["sqlite"], indirect=True)


def reopened(store: Store, key: Secret) -> Store:
    other = Store(store.target, cipher=Cipher(key), patience_s=0.2)
    other.open(migrate=False)
    return other


def keys_with(store: Store, key: Secret) -> list[str]:
    """All upstream keys, as a process reads them that starts with this key."""
    with closing(reopened(store, key)) as other:
        projects = list_projects(other, limit=1000).items
        return [text.reveal() for p in projects for text in p.api_keys.values()]


def add_projects(add_project: Add, count: int) -> list[str]:
    keys = [f"sk-upstream-{number:04}-0123456789" for number in range(count)]
    for number, key in enumerate(keys):
        add_project(name=f"{number:04}", api_keys={"openai": Secret(key)})
    return keys


def test_both_keys_read_everything_until_the_rotation_ends(
    store: Store, add_project: Add, now: datetime
) -> None:
    keys = add_projects(add_project, 3)
    old, new = store.cipher.current.key, new_encryption_key()
    rotation = begin_rotation(store, new, at=now)
    assert (rotation.old.key, rotation.new.key, rotation.was_begun) == (old, new, False)
    assert keys_with(store, old) == keys_with(store, new) == keys
    assert reencrypt(store) == Encrypted(encrypted=3, already=0)
    assert keys_with(store, old) == keys_with(store, new) == keys
    assert finish_rotation(store)
    assert keys_with(store, new) == keys
    with pytest.raises(StoreError, match="ENCRYPTION_KEY isn't the one"):
        keys_with(store, old)


def test_many_values_are_re_encrypted_in_batches(
    store: Store, add_project: Add, now: datetime
) -> None:
    add_project(
        api_keys={f"api-{number}": Secret("sk-upstream-0123456789") for number in range(401)}
    )
    begin_rotation(store, None, at=now)
    assert reencrypt(store) == Encrypted(encrypted=401, already=0)
    assert reencrypt(store) == Encrypted(encrypted=0, already=401)


def test_values_that_nobody_re_encrypted_are_so_at_the_end(
    store: Store, add_project: Add, now: datetime
) -> None:
    keys = add_projects(add_project, 2)
    new = begin_rotation(store, None, at=now).new
    finish_rotation(store)
    assert keys_with(store, new.key) == keys


def test_a_rotation_that_was_begun_goes_on_to_the_same_key(store: Store, now: datetime) -> None:
    old, new = store.cipher.current.key, new_encryption_key()
    begin_rotation(store, new, at=now)
    for key in (old, new):
        with closing(reopened(store, key)) as other:
            for wanted in (None, new):
                again = begin_rotation(other, wanted, at=now)
                assert (again.old.key, again.new.key, again.was_begun) == (old, new, True)


def test_two_rotations_at_once_are_refused(store: Store, now: datetime) -> None:
    begin_rotation(store, None, at=now)
    with pytest.raises(Conflict, match="isn't finished"):
        begin_rotation(store, new_encryption_key(), at=now)


def test_the_key_in_use_is_no_new_one(store: Store, now: datetime) -> None:
    with pytest.raises(Conflict, match="the one that is in use"):
        begin_rotation(store, store.cipher.current.key, at=now)
    assert begun_rotation(store) is None


def test_nothing_to_finish_is_said(store: Store, now: datetime) -> None:
    assert not finish_rotation(store)
    begin_rotation(store, None, at=now)
    assert begun_rotation(store) is not None
    assert finish_rotation(store)
    assert begun_rotation(store) is None


def test_rotations_follow_each_other(store: Store, add_project: Add, now: datetime) -> None:
    keys = add_projects(add_project, 2)
    for _ in range(3):
        new = begin_rotation(store, None, at=now).new
        reencrypt(store)
        finish_rotation(store)
    assert keys_with(store, new.key) == keys


def test_servers_are_told_by_a_change(store: Store, now: datetime) -> None:
    with closing(reopened(store, store.cipher.current.key)) as server:
        last_id, _ = changes_after(server, 0)
        new = begin_rotation(store, None, at=now).new
        _, changes = changes_after(server, last_id)
        assert [tuple(change) for change in changes] == [("key", new.key_id)]
        learn_keys(server)
        finish_rotation(store)
        learn_keys(server)
        assert server.cipher.current.key_id == new.key_id


def test_a_reload_is_given_only_a_key_of_the_database(store: Store, now: datetime) -> None:
    with closing(reopened(store, store.cipher.current.key)) as server:
        new = begin_rotation(store, None, at=now).new
        finish_rotation(store)
        with pytest.raises(StoreError, match="ENCRYPTION_KEY isn't the one"):
            accept_key(server, new_encryption_key())
        accept_key(server, new.key)
        assert server.cipher.current.key_id == new.key_id


@on_sqlite
def test_plain_text_is_encrypted(store: Store, add_project: Add) -> None:
    """Nobody writes any: the table itself refuses it."""
    add_project()
    with store.writing() as database:
        database.sql("PRAGMA ignore_check_constraints = 1")
        ApiKeyRow.update(encrypted="sk-plain-0123456789").execute(database)
    assert reencrypt(store) == Encrypted(encrypted=1, already=0)
    assert keys_with(store, store.cipher.current.key) == ["sk-plain-0123456789"]


@on_sqlite
def test_what_the_old_key_opens_is_not_left_in_the_file(
    store: Store, add_project: Add, now: datetime
) -> None:
    add_project()
    before = _stored(store)
    begin_rotation(store, None, at=now)
    reencrypt(store)
    during = _stored(store)
    finish_rotation(store)
    after = _stored(store)
    store.close()  # moves the log into the file
    assert isinstance(store.target, Path)
    content = store.target.read_bytes()
    assert after < during  # the keys that were wrapped are gone
    assert all(value.encode() in content for value in after)
    assert not any(value.encode() in content for value in before | during if value not in after)


def _stored(store: Store) -> set[str]:
    """All that is under a key."""
    with store.reading() as database:
        rows = database.sql("SELECT encrypted FROM api_keys")
        rows += database.sql("SELECT value FROM meta WHERE name LIKE 'encryption_%'")
    return {value for (value,) in rows}
