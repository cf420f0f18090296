from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime

import pytest

from llm_proxy.errors import StoreError
from llm_proxy.secrets import Cipher, Secret, new_encryption_key
from llm_proxy.store.database import Store
from llm_proxy.store.encryption import begin_rotation, finish_rotation, reencrypt
from llm_proxy.store.keyring import CHECK
from llm_proxy.store.meta import delete_meta
from llm_proxy.store.projects import Project, ProjectChanges, get_project, update_project

Add = Callable[..., Project]


def opened(store: Store, key: Secret) -> Store:
    """The same database, as another process has it."""
    other = Store(store.target, cipher=Cipher(key), patience_s=0.2)
    other.open(migrate=False)
    return other


@pytest.fixture
def bystander(store: Store) -> Iterator[Store]:
    """A server that nobody told anything."""
    with closing(opened(store, store.cipher.current.key)) as other:
        yield other


def key_of(store: Store, project: Project) -> str:
    found = get_project(store, project.id)
    assert found is not None
    return found.api_keys["openai"].reveal()


def test_another_key_than_the_databases_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="ENCRYPTION_KEY isn't the one"):
        opened(store, new_encryption_key())


def test_a_database_that_nobody_wrote_keys_to_is_the_first_ones(store: Store) -> None:
    with store.writing() as database:
        delete_meta(database, (CHECK,))
    key = new_encryption_key()
    other = Store(store.target, cipher=Cipher(key))
    other.open(migrate=False)  # stores nothing
    other.close()
    other.open(migrate=True)
    other.close()
    with pytest.raises(StoreError, match="ENCRYPTION_KEY isn't the one"):
        opened(store, new_encryption_key())
    opened(store, key).close()


def test_a_rotation_is_learned_at_the_first_value_that_cannot_be_read(
    store: Store, bystander: Store, add_project: Add, now: datetime
) -> None:
    project = add_project()
    assert key_of(bystander, project) == "sk-upstream-0123456789"
    begin_rotation(store, None, at=now)
    reencrypt(store)
    assert key_of(bystander, project) == "sk-upstream-0123456789"
    assert bystander.cipher.is_rotating
    finish_rotation(store)
    assert key_of(bystander, project) == "sk-upstream-0123456789"


def test_what_is_written_during_a_rotation_is_under_the_new_key(
    store: Store, bystander: Store, add_project: Add, now: datetime
) -> None:
    """Even by one who has not heard of it: nothing would re-encrypt it later."""
    project = add_project()
    new = begin_rotation(store, None, at=now).new
    reencrypt(store)
    changes = ProjectChanges(api_keys={"openai": Secret("sk-altered-0123456789")})
    update_project(bystander, project.id, changes, at=now)
    finish_rotation(store)
    with closing(opened(store, new.key)) as fresh:
        assert key_of(fresh, project) == "sk-altered-0123456789"


def test_one_who_learned_nothing_in_time_is_told_to_set_the_new_key(
    store: Store, bystander: Store, add_project: Add, now: datetime
) -> None:
    project = add_project()
    begin_rotation(store, None, at=now)
    finish_rotation(store)
    with pytest.raises(StoreError, match="after a rotation the new one"):
        get_project(bystander, project.id)


def test_a_key_that_a_start_would_accept_is_accepted_later(
    store: Store, bystander: Store, add_project: Add, now: datetime
) -> None:
    project = add_project()
    new = begin_rotation(store, None, at=now).new
    finish_rotation(store)
    with pytest.raises(StoreError, match="ENCRYPTION_KEY isn't the one"):
        bystander.cipher.accept(Cipher(new_encryption_key()))
    bystander.cipher.accept(new)
    assert key_of(bystander, project) == "sk-upstream-0123456789"
    assert bystander.cipher.current.key_id == new.key_id


def test_a_damaged_value_is_not_mistaken_for_a_rotation(store: Store) -> None:
    with pytest.raises(StoreError, match="can't be decrypted"):
        store.cipher.decrypt("enc:v1:AAAA")


def test_a_rotation_that_was_rolled_back_leaves_the_old_key_in_use(
    store: Store, add_project: Add, now: datetime
) -> None:
    class Interrupted(Exception):
        pass

    old = store.cipher.current.key
    with pytest.raises(Interrupted), store.writing():
        begin_rotation(store, None, at=now)
        raise Interrupted
    project = add_project()
    with closing(opened(store, old)) as fresh:
        assert key_of(fresh, project) == "sk-upstream-0123456789"
