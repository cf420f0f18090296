from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from llm_proxy.database_url import DatabaseUrl
from llm_proxy.errors import Conflict, StoreError
from llm_proxy.grants import Lease
from llm_proxy.store.changes import append_change, last_change_id
from llm_proxy.store.copying import copy_database, count_rows
from llm_proxy.store.database import Store
from llm_proxy.store.hosts import beat, leave
from llm_proxy.store.leases import take_lease
from llm_proxy.store.projects import Project, list_projects
from llm_proxy.store.tokens import Token, list_tokens

AddProject = Callable[..., Project]
AddToken = Callable[..., tuple[Token, bytes]]


@pytest.fixture(params=["to sqlite", "to postgresql"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Path | DatabaseUrl:
    if request.param == "to sqlite":
        return tmp_path / "target.db"
    url = request.getfixturevalue("other_postgres_url")
    assert isinstance(url, DatabaseUrl)
    return url


def test_all_arrives_and_goes_on(
    store: Store,
    add_project: AddProject,
    add_token: AddToken,
    target: Path | DatabaseUrl,
    now: datetime,
) -> None:
    inactive = add_project(name="ä %? '", metadata={"a": [1, "%s"]}, is_active=False)
    tokens = [add_token(project_id=inactive.id, max_requests=5)[0] for _ in range(450)]
    lease = take_lease(store, tokens[0].id, 2, host="h", holder="w", at=now)
    with store.writing() as database:
        database.number_from("leases", 1000)
        highest = database.highest_id("leases")
        append_change(database, "token", tokens[0].id, now)
    total = count_rows(store.target)
    seen: dict[str, int] = {}

    def progress(table: str, rows: int) -> None:
        seen[table] = seen.get(table, 0) + rows

    copied = copy_database(store.target, target, replaces=False, at=now, progress=progress)

    assert copied["tokens"] == 450
    assert {table: rows for table, rows in copied.items() if rows} == seen
    assert sum(copied.values()) == total == count_rows(target)
    other = Store(target, cipher=store.cipher.current)
    other.open(migrate=False)
    assert list_projects(other, limit=10) == list_projects(store, limit=10)
    assert list_tokens(other, limit=1000) == list_tokens(store, limit=1000)
    assert last_change_id(other) == last_change_id(store)
    with other.writing() as database:
        append_change(database, "token", "next", now)
    assert last_change_id(other) == last_change_id(store) + 1
    taken = take_lease(other, tokens[1].id, 1, host="h", holder="w", at=now)
    assert isinstance(lease, Lease) and isinstance(taken, Lease)
    assert lease.id < taken.id == highest + 1
    other.close()


def test_a_target_that_holds_data_is_replaced_on_demand_alone(
    store: Store,
    add_project: AddProject,
    target: Path | DatabaseUrl,
    now: datetime,
) -> None:
    project = add_project(name="first")
    copy_database(store.target, target, replaces=False, at=now)
    second = add_project(name="second")
    with pytest.raises(Conflict, match="holds data already.*--force"):
        copy_database(store.target, target, replaces=False, at=now)
    copy_database(store.target, target, replaces=True, at=now)
    other = Store(target, cipher=store.cipher.current)
    other.open(migrate=False)
    names = [found.name for found in list_projects(other, limit=10).items]
    assert names == [project.name, second.name]
    other.close()


def test_a_database_that_a_server_uses_is_not_copied(
    store: Store, target: Path | DatabaseUrl, now: datetime
) -> None:
    beat(store, "host", now)
    with pytest.raises(Conflict, match="a server uses the database"):
        copy_database(store.target, target, replaces=True, at=now + timedelta(seconds=5))
    copy_database(store.target, target, replaces=True, at=now + timedelta(minutes=1))
    leave(store, "host")
    copy_database(store.target, target, replaces=True, at=now)


def test_a_copy_that_fails_leaves_the_target_as_it_was(
    store: Store, add_project: AddProject, target: Path | DatabaseUrl, now: datetime
) -> None:
    add_project()
    copy_database(store.target, target, replaces=False, at=now)
    before = count_rows(target)
    add_project()

    def fail(table: str, rows: int) -> None:
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        copy_database(store.target, target, replaces=True, at=now, progress=fail)
    assert count_rows(target) == before


def test_a_database_is_not_copied_to_itself(store: Store, now: datetime) -> None:
    with pytest.raises(Conflict, match="can't be copied to itself"):
        copy_database(store.target, store.target, replaces=True, at=now)


def test_a_source_that_is_none_is_told(tmp_path: Path, now: datetime) -> None:
    with pytest.raises(StoreError, match="there is no database at"):
        copy_database(tmp_path / "a.db", tmp_path / "b.db", replaces=True, at=now)
    assert list(tmp_path.iterdir()) == []
