from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from llm_proxy.database_url import DatabaseUrl, write_database
from llm_proxy.errors import StoreError, StoreUnavailable
from llm_proxy.secrets import Cipher, new_encryption_key
from llm_proxy.store.changes import Change, append_change, changes_after, last_change_id
from llm_proxy.store.database import Store
from llm_proxy.store.migrations import MIGRATIONS
from llm_proxy.store.tokens import Token, get_token, revoke_token

pytestmark = pytest.mark.anyio

AddToken = Callable[..., tuple[Token, bytes]]


def test_what_is_committed_is_durable_and_private(sqlite_store: Store, tmp_path: Path) -> None:
    with sqlite_store.reading() as database:
        assert database.sql("PRAGMA journal_mode") == [("wal",)]
        assert database.sql("PRAGMA synchronous") == [(2,)]  # FULL
        assert database.sql("PRAGMA foreign_keys") == [(1,)]
    files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.glob("store.db*")}
    assert files == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}


def test_a_failure_inside_undoes_all_of_a_transaction(
    store: Store, add_token: AddToken, now: datetime
) -> None:
    token, _ = add_token()
    with pytest.raises(RuntimeError, match="half-way"), store.writing():
        revoke_token(store, token.id, at=now)
        raise RuntimeError("half-way")
    assert get_token(store, token.id) == token


def test_a_wrong_encryption_key_is_told_at_the_start(store: Store) -> None:
    other = Store(store.target, cipher=Cipher(new_encryption_key()))
    for migrate in (True, False):
        with pytest.raises(StoreError, match="ENCRYPTION_KEY isn't the one"):
            other.open(migrate=migrate)
    with pytest.raises(StoreUnavailable, match="is closed"):
        last_change_id(other)


def test_a_key_is_checked_from_the_first_store_that_has_one(tmp_path: Path) -> None:
    blind = Store(tmp_path / "x.db", cipher=None)
    blind.open(migrate=True)
    blind.close()
    key = new_encryption_key()
    for _ in range(2):
        store = Store(tmp_path / "x.db", cipher=Cipher(key))
        store.open(migrate=True)
        store.close()
    with pytest.raises(StoreError, match="ENCRYPTION_KEY isn't the one"):
        Store(tmp_path / "x.db", cipher=Cipher(new_encryption_key())).open(migrate=True)


def test_a_reader_does_not_migrate(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with pytest.raises(StoreError, match="there is no database"):
        Store(path, cipher=None).open(migrate=False)
    assert not path.exists()


def test_closing_twice_is_fine_and_opening_again_works(store: Store) -> None:
    store.close()
    store.close()
    with pytest.raises(StoreUnavailable, match="is closed"):
        last_change_id(store)
    assert store.open(migrate=True) == []
    assert last_change_id(store) == 0


async def test_run_calls_a_function_on_one_thread_of_its_own(store: Store) -> None:
    def where(store: Store, *, more: int) -> tuple[str, int]:
        return threading.current_thread().name, more

    answers = await asyncio.gather(*(store.run(where, more=n) for n in range(5)))
    assert {name for name, _ in answers} == {"store_0"}
    assert [more for _, more in answers] == list(range(5))


async def test_run_passes_errors_on(store: Store) -> None:
    def fail(store: Store) -> None:
        raise StoreError("the reason")

    with pytest.raises(StoreError, match="the reason"):
        await store.run(fail)


async def test_a_call_that_waits_too_long_for_its_turn_is_given_up_undone(store: Store) -> None:
    release = threading.Event()
    ran = []
    long = asyncio.create_task(store.run(lambda store: release.wait(10)))
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable, match="too slow to keep up"):
        await store.run(lambda store: ran.append(1))
    release.set()
    assert await long  # what has begun is waited for, however long it takes
    await store.run(last_change_id)
    assert ran == []


async def test_too_many_waiting_calls_are_refused_at_once(store: Store) -> None:
    release = threading.Event()
    calls = [asyncio.create_task(store.run(lambda store: release.wait(10))) for _ in range(1000)]
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable, match="too slow to keep up"):
        await store.run(last_change_id)
    release.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert results[0] is True
    assert await store.run(last_change_id) == 0


async def test_a_caller_that_gives_up_takes_its_call_back(store: Store) -> None:
    release = threading.Event()
    ran = []
    long = asyncio.create_task(store.run(lambda store: release.wait(10)))
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await store.run(lambda store: ran.append(1))
    release.set()
    await long
    await store.run(last_change_id)
    assert ran == []


async def test_calls_after_close_are_refused(store: Store) -> None:
    store.close()
    with pytest.raises(StoreUnavailable, match="is closed"):
        await store.run(last_change_id)


async def test_calls_that_wait_when_the_store_closes_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "x.db", cipher=None, patience_s=30)
    store.open(migrate=True)
    begun, release = threading.Event(), threading.Event()

    def hold(store: Store) -> None:
        begun.set()
        release.wait(10)

    running = asyncio.create_task(store.run(hold))
    await asyncio.to_thread(begun.wait, 10)
    waiting = asyncio.create_task(store.run(last_change_id))
    await asyncio.sleep(0)
    closing = asyncio.create_task(asyncio.to_thread(store.close))
    with pytest.raises(StoreUnavailable, match="is closed"):
        await waiting
    release.set()
    await running
    await closing


def test_a_lock_of_another_process_is_waited_for_only_so_long(sqlite_store: Store) -> None:
    store = sqlite_store
    holder = sqlite3.connect(str(store.target), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked by another process"), store.writing():
        raise AssertionError("not reached")
    assert last_change_id(store) == 0  # readers are not in the way of a writer
    holder.execute("COMMIT")
    holder.close()
    with store.writing():
        pass


def test_a_locked_database_is_told_at_the_start(tmp_path: Path) -> None:
    holder = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailable, match="locked by another process"):
        Store(tmp_path / "x.db", cipher=None, patience_s=0.1).open(migrate=True)
    holder.close()


_COUNT = """
import sys
from llm_proxy.database_url import parse_database
from datetime import UTC, datetime
from llm_proxy.grants import LeaseUse
from llm_proxy.store.database import Store
from llm_proxy.store.leases import give_back_leases, take_lease

store = Store(parse_database(sys.argv[1]), cipher=None)
store.open(migrate=True)
for _ in range(int(sys.argv[3])):
    lease = take_lease(store, sys.argv[2], 1, host="h", holder="w", at=datetime.now(UTC))
    give_back_leases(store, [LeaseUse(lease.id, 1, 0.0)])
store.close()
"""


def test_processes_that_write_at_the_same_time_lose_nothing(
    store: Store, add_token: AddToken
) -> None:
    token, _ = add_token()
    command = [sys.executable, "-c", _COUNT, write_database(store.target), token.id, "40"]
    others = [subprocess.Popen(command) for _ in range(2)]
    assert [other.wait(30) for other in others] == [0, 0]
    found = get_token(store, token.id)
    assert found is not None
    assert found.request_count == 80


_OPEN = """
import sys
from llm_proxy.database_url import parse_database
from llm_proxy.store.database import Store

store = Store(parse_database(sys.argv[1]), cipher=None)
print(len(store.open(migrate=True)))
store.close()
"""


def test_processes_that_make_the_database_together_make_it_once(
    database_target: Path | DatabaseUrl,
) -> None:
    command = [sys.executable, "-c", _OPEN, write_database(database_target)]
    others = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    printed = sorted(other.communicate(timeout=30)[0].strip() for other in others)
    assert [other.returncode for other in others] == [0, 0, 0]
    assert printed == ["0", "0", str(len(MIGRATIONS))]


def test_what_begins_by_reading_can_not_go_on_to_write(store: Store) -> None:
    with pytest.raises(RuntimeError, match="can't go on to write"), store.reading():  # noqa: SIM117
        with store.writing():
            raise AssertionError("not reached")
    with store.writing(), store.reading(), store.writing() as database:
        assert database.sql("SELECT 1") == [(1,)]


def test_readers_see_nothing_of_a_transaction_that_runs(store: Store, now: datetime) -> None:
    other = Store(store.target, cipher=None)
    other.open(migrate=False)
    with store.writing() as database:
        append_change(database, "token", "a", now)
        assert last_change_id(other) == 0
    assert last_change_id(other) == 1
    other.close()


def test_a_reader_sees_one_state_of_the_data(store: Store, now: datetime) -> None:
    other = Store(store.target, cipher=None)
    other.open(migrate=False)
    with other.reading() as view:
        before = view.sql("SELECT count(*) FROM changes")
        with store.writing() as database:
            append_change(database, "token", "a", now)
        assert view.sql("SELECT count(*) FROM changes") == before == [(0,)]
    other.close()


def test_writers_go_one_by_one_so_that_no_change_is_missed(store: Store, now: datetime) -> None:
    """The second begins, and would be numbered, while the first has not committed yet."""
    other = Store(store.target, cipher=None, patience_s=10)
    other.open(migrate=False)
    begun = threading.Event()

    def write_too() -> None:
        begun.set()
        with other.writing() as database:
            append_change(database, "token", "second", now)

    thread = threading.Thread(target=write_too)
    with store.writing() as database:
        append_change(database, "token", "first", now)
        thread.start()
        begun.wait(10)
        time.sleep(0.05)  # for it to come as far as it can
        assert changes_after(store, 0)[1] == [Change("token", "first")]
        with_other = Store(store.target, cipher=None)
        with_other.open(migrate=False)
        assert changes_after(with_other, 0)[1] == []
        with_other.close()
    thread.join(10)
    assert [change.id for change in changes_after(store, 0)[1]] == ["first", "second"]
    other.close()


def test_a_writer_that_waits_too_long_is_told(store: Store) -> None:
    other = Store(store.target, cipher=None, patience_s=0.1)
    other.open(migrate=False)
    with (
        store.writing(),
        pytest.raises(StoreUnavailable, match="locked by another"),
        other.writing(),
    ):
        raise AssertionError("not reached")
    with other.writing():
        pass
    other.close()


async def test_readers_of_a_server_run_beside_each_other(postgres_url: DatabaseUrl) -> None:
    store = Store(postgres_url, cipher=None, pool_size=2)
    store.open(migrate=True)
    meet = threading.Barrier(2)

    def read(store: Store) -> int:
        with store.reading() as database:
            meet.wait(10)  # neither ends before both are inside
            return int(database.sql("SELECT 1")[0][0])

    answers = await asyncio.gather(store.run(read), store.run(read))
    assert list(answers) == [1, 1]
    store.close()


async def test_a_store_that_is_given_up_is_not_asked(store: Store) -> None:
    assert await store.run(last_change_id) == 0
    store.is_given_up = True
    with pytest.raises(StoreUnavailable, match="isn't waited for"):
        await store.run(last_change_id)
