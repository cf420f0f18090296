from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from llm_proxy.errors import StoreError
from llm_proxy.store.migrations import (
    MIGRATIONS,
    Migration,
    migrate,
    require_current,
    rollback,
    status,
)
from llm_proxy.store.opening import APPLICATION_ID, Database, open_database

NAMES = [migration.name for migration in MIGRATIONS]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    database = open_database(path, create=True)
    yield database
    database.close()


def shape(database: Database) -> set[tuple[object, ...]]:
    return set(database.sql("SELECT type, name, tbl_name, sql FROM sqlite_master"))


def test_names_are_numbered_in_order() -> None:
    assert [int(re.fullmatch(r"m(\d{3})_\w+", name)[1]) for name in NAMES] == list(  # type: ignore[index]
        range(1, len(NAMES) + 1)
    )


def test_an_empty_file_gets_everything_once(database: Database, path: Path, now: datetime) -> None:
    assert migrate(database, path, at=now) == NAMES
    assert migrate(database, path, at=now) == []
    assert [(state.name, state.applied_at) for state in status(database, path)] == [
        (name, now) for name in NAMES
    ]
    require_current(database, path)


def test_the_header_says_whose_database_it_is(
    database: Database, path: Path, now: datetime
) -> None:
    migrate(database, path, at=now)
    assert int.from_bytes(path.read_bytes()[68:72], "big") == APPLICATION_ID


@pytest.mark.parametrize("count", range(1, len(NAMES)))
def test_every_earlier_shape_becomes_the_same(
    database: Database, path: Path, now: datetime, tmp_path: Path, count: int
) -> None:
    migrate(database, path, at=now, migrations=MIGRATIONS[:count])
    assert migrate(database, path, at=now) == NAMES[count:]
    other = tmp_path / "fresh.db"
    fresh = open_database(other, create=True)
    migrate(fresh, other, at=now)
    assert shape(database) == shape(fresh)
    fresh.close()


def test_data_of_an_earlier_shape_survives(database: Database, path: Path, now: datetime) -> None:
    migrate(database, path, at=now, migrations=MIGRATIONS[:1])
    database.sql("INSERT INTO projects VALUES ('id', 'name', '', '{}', 1, NULL, 't', 't')")
    migrate(database, path, at=now)
    assert database.sql("SELECT id, name FROM projects") == [("id", "name")]


@pytest.mark.parametrize("steps", range(1, len(NAMES) + 1))
def test_a_rollback_leads_back_to_the_earlier_shape(
    database: Database, path: Path, now: datetime, tmp_path: Path, steps: int
) -> None:
    migrate(database, path, at=now)
    assert rollback(database, path, steps=steps) == NAMES[::-1][:steps]
    other = tmp_path / "earlier.db"
    earlier = open_database(other, create=True)
    migrate(earlier, other, at=now, migrations=MIGRATIONS[: len(NAMES) - steps])
    assert shape(database) - shape(earlier) <= {
        # SQLite keeps the table of AUTOINCREMENT counters once there was one.
        ("table", "sqlite_sequence", "sqlite_sequence", "CREATE TABLE sqlite_sequence(name,seq)")
    }
    earlier.close()
    assert migrate(database, path, at=now) == NAMES[len(NAMES) - steps :]


def test_more_steps_than_there_are_undo_all(database: Database, path: Path, now: datetime) -> None:
    migrate(database, path, at=now)
    assert rollback(database, path, steps=99) == NAMES[::-1]
    assert [state.applied_at for state in status(database, path)] == [None] * len(NAMES)


def m999_broken(database: Database) -> None:
    database.sql("CREATE TABLE half (a)")
    database.sql("CREATE TABLE half (a)")


def test_a_migration_that_fails_leaves_nothing(
    database: Database, path: Path, now: datetime
) -> None:
    broken = Migration(up=m999_broken, down=m999_broken)
    with pytest.raises(Exception, match="half"):
        migrate(database, path, at=now, migrations=(*MIGRATIONS, broken))
    assert shape(database) == set()
    assert database.pragma("application_id") == 0


def test_an_older_schema_says_how_to_update(database: Database, path: Path, now: datetime) -> None:
    migrate(database, path, at=now, migrations=MIGRATIONS[:2])
    with pytest.raises(StoreError, match=f"{NAMES[2]} is missing.*llm-proxy db migrate"):
        require_current(database, path)


def test_a_newer_schema_is_refused_and_left_alone(
    database: Database, path: Path, now: datetime
) -> None:
    migrate(database, path, at=now)
    database.sql("INSERT INTO migrations VALUES ('m900_future', '2031-01-01T00:00:00.000000Z')")
    before = shape(database)
    for refused in (
        lambda: migrate(database, path, at=now),
        lambda: rollback(database, path, steps=1),
        lambda: require_current(database, path),
    ):
        with pytest.raises(StoreError, match="newer llm-proxy .m900_future is unknown here"):
            refused()
    assert shape(database) == before
    assert status(database, path)[-1].name == "m900_future"


def test_tables_that_appeared_meanwhile_are_somebody_elses(
    database: Database, path: Path, now: datetime
) -> None:
    database.sql("CREATE TABLE theirs (a)")
    with pytest.raises(StoreError, match="belongs to another program"):
        migrate(database, path, at=now)
    assert {name for _, name, *_ in shape(database)} == {"theirs"}


def test_ours_without_its_list_of_migrations_is_broken(
    database: Database, path: Path, now: datetime
) -> None:
    migrate(database, path, at=now)
    database.sql("DROP TABLE migrations")
    with pytest.raises(StoreError, match="lacks llm-proxy's table of migrations"):
        migrate(database, path, at=now)


def test_an_upstream_key_in_clear_is_refused_by_the_schema(
    database: Database, path: Path, now: datetime
) -> None:
    migrate(database, path, at=now)
    database.sql("INSERT INTO projects VALUES ('id', 'name', '', '{}', 1, NULL, 't', 't')")
    with pytest.raises(Exception, match="CHECK constraint"):
        database.sql("INSERT INTO api_keys VALUES ('id', 'openai', 'sk-in-clear')")
