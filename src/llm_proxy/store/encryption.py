"""Rotation of ENCRYPTION_KEY while servers run, and what is not encrypted yet.

A rotation has a beginning, after which everybody writes under the new key and either key reads
everything; a middle, in which values are re-encrypted in batches; and an end, after which the old
key is worth nothing. Each step is a transaction, and each may be done again.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final, NamedTuple

import peewee

from llm_proxy.errors import Conflict
from llm_proxy.secrets import Cipher, Secret, is_encrypted, new_encryption_key
from llm_proxy.store.changes import append_change
from llm_proxy.store.database import Store
from llm_proxy.store.keyring import CHECK, NEXT, PREVIOUS, known_value
from llm_proxy.store.meta import delete_meta, read_meta, write_meta
from llm_proxy.store.models import ApiKeyRow
from llm_proxy.store.opening import Database

KEY: Final = "key"  # kind of the change that says so
_BATCH = 200  # values in one transaction: other writers wait some milliseconds for it


class Rotation(NamedTuple):
    old: Cipher
    new: Cipher
    was_begun: bool  # before


class Encrypted(NamedTuple):
    encrypted: int
    already: int


def begin_rotation(store: Store, new_key: Secret | None, *, at: datetime) -> Rotation:
    """To `new_key`, or one made here. One that was begun goes on: only to the key it was begun for.

    Raises Conflict.
    """
    wanted = None if new_key is None else Cipher(new_key)
    with store.writing() as database:
        store.cipher.learn()
        old = store.cipher.current
        if (begun := _begun(store, database)) is not None:
            if wanted is not None and wanted.key_id != begun.new.key_id:
                raise Conflict(
                    "a rotation to another key was begun and isn't finished; finish that first: "
                    "llm-proxy db rotate-key --finish, with its new key as ENCRYPTION_KEY"
                )
            return begun
        new = wanted or Cipher(new_encryption_key())
        if new.key_id == old.key_id:
            raise Conflict("the new key is the one that is in use; give another one")
        write_meta(database, CHECK, known_value(new))
        write_meta(database, NEXT, old.wrap(new))
        write_meta(database, PREVIOUS, new.wrap(old))
        append_change(database, KEY, new.key_id, at)
        store.cipher.learn()
    return Rotation(old=old, new=new, was_begun=False)


def begun_rotation(store: Store) -> Rotation | None:
    """The one that isn't finished."""
    with store.reading() as database:
        store.cipher.learn()
        return _begun(store, database)


def learn_keys(store: Store) -> None:
    """What the `changes` of a key ask for: the new key can't be learned any more one day."""
    store.cipher.learn()


def accept_key(store: Store, key: Secret) -> None:
    """Raises StoreError unless a server could start with it now."""
    store.cipher.accept(Cipher(key))


def _begun(store: Store, database: Database) -> Rotation | None:
    previous = read_meta(database, (PREVIOUS,)).get(PREVIOUS)
    new = store.cipher.current
    old = None if previous is None else new.unwrap(previous)
    return None if old is None else Rotation(old=old, new=new, was_begun=True)


def reencrypt(store: Store) -> Encrypted:
    """Brings what is under another key, or under none, under the one in force."""
    done, already, after = 0, 0, ("", "")
    while True:
        with store.writing() as database:
            rows = _rows_after(database, after)
            changed = _reencrypt(store, database, rows)
        done, already = done + changed, already + len(rows) - changed
        if len(rows) < _BATCH:
            return Encrypted(encrypted=done, already=already)
        after = (rows[-1].project_id, rows[-1].api)


def finish_rotation(store: Store) -> bool:
    """From now on the old key opens nothing; False when no rotation was begun."""
    with store.writing() as database:
        rows = ApiKeyRow.select().execute(database)
        _reencrypt(store, database, list(rows))  # none, unless nobody called `reencrypt` before
        deleted = delete_meta(database, (NEXT, PREVIOUS))
        store.cipher.learn()
    return bool(deleted)


def _rows_after(database: Database, place: tuple[str, str]) -> list[ApiKeyRow]:
    project_id, api = place
    is_later = (ApiKeyRow.project_id > project_id) | (
        (ApiKeyRow.project_id == project_id) & (ApiKeyRow.api > api)
    )
    query = ApiKeyRow.select().where(is_later)
    query = query.order_by(ApiKeyRow.project_id, ApiKeyRow.api).limit(_BATCH)
    return list(query.execute(database))


def _reencrypt(store: Store, database: Database, rows: Iterable[ApiKeyRow]) -> int:
    _erase_what_is_deleted(database)
    store.cipher.learn()
    changed = 0
    for row in rows:
        if store.cipher.current.opens(row.encrypted):
            continue
        is_plain = not is_encrypted(row.encrypted)
        secret = Secret(row.encrypted) if is_plain else store.cipher.decrypt(row.encrypted)
        ApiKeyRow.update(encrypted=store.cipher.current.encrypt(secret)).where(
            (ApiKeyRow.project_id == row.project_id) & (ApiKeyRow.api == row.api)
        ).execute(database)
        changed += 1
    return changed


def _erase_what_is_deleted(database: Database) -> None:
    """SQLite leaves it in the file otherwise, where the old key would open it."""
    if isinstance(database, peewee.SqliteDatabase):
        database.pragma("secure_delete", 1)
