from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from llm_proxy.database_url import DatabaseUrl, write_database
from llm_proxy.errors import StoreError
from llm_proxy.store.engines.sqlite_file import APPLICATION_ID
from llm_proxy.store.migrations import (
    MIGRATIONS,
    Migration,
    migrate,
    require_current,
    rollback,
    status,
)
from llm_proxy.store.opening import Database, engine_of

NAMES = [migration.name for migration in MIGRATIONS]


@pytest.fixture
def path(database_target: Path | DatabaseUrl) -> Path | DatabaseUrl:
    return database_target


@pytest.fixture
def database(path: Path | DatabaseUrl) -> Iterator[Database]:
    database = engine_of(path).connect(create=True)
    yield database
    database.close()


@pytest.fixture
def sqlite_database(tmp_path: Path) -> Iterator[Database]:
    database = engine_of(tmp_path / "x.db").connect(create=True)
    yield database
    database.close()


_SHAPES = {
    "SqliteConnection": ["SELECT type, name, tbl_name, sql FROM sqlite_master"],
    "PostgresConnection": [
        "SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name "
        "FROM information_schema.columns WHERE table_schema = 'public'",
        "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
        "SELECT conrelid::regclass::text, contype::text, pg_get_constraintdef(oid) "
        "FROM pg_constraint WHERE connamespace = 'public'::regnamespace",
    ],
    "MysqlConnection": [
        "SELECT table_name, column_name, column_type, is_nullable, column_default, "
        "collation_name FROM information_schema.columns WHERE table_schema = database()",
        "SELECT table_name, index_name, column_name, seq_in_index, non_unique "
        "FROM information_schema.statistics WHERE table_schema = database()",
        "SELECT table_name, constraint_type FROM information_schema.table_constraints "
        "WHERE table_schema = database()",
    ],
}
# SQLite keeps the table of AUTOINCREMENT counters once there was one.
_COUNTERS = (
    "table",
    "sqlite_sequence",
    "sqlite_sequence",
    "CREATE TABLE sqlite_sequence(name,seq)",
)


def shape(database: Database) -> set[tuple[object, ...]]:
    statements = _SHAPES[type(database).__name__]
    return {row for statement in statements for row in database.sql(statement)} - {_COUNTERS}


def test_names_are_numbered_in_order() -> None:
    assert [int(re.fullmatch(r"m(\d{3})_\w+", name)[1]) for name in NAMES] == list(  # type: ignore[index]
        range(1, len(NAMES) + 1)
    )


def test_an_empty_file_gets_everything_once(database: Database, now: datetime) -> None:
    assert migrate(database, at=now) == NAMES
    assert migrate(database, at=now) == []
    assert [(state.name, state.applied_at) for state in status(database)] == [
        (name, now) for name in NAMES
    ]
    require_current(database)


def test_the_header_of_a_file_says_whose_database_it_is(
    sqlite_database: Database, tmp_path: Path, now: datetime
) -> None:
    path = tmp_path / "x.db"
    migrate(sqlite_database, at=now)
    assert int.from_bytes(path.read_bytes()[68:72], "big") == APPLICATION_ID


@pytest.mark.parametrize("count", range(1, len(NAMES)))
def test_every_earlier_shape_becomes_the_same(
    database: Database, now: datetime, count: int
) -> None:
    migrate(database, at=now, migrations=MIGRATIONS[:count])
    assert migrate(database, at=now) == NAMES[count:]
    found = shape(database)
    rollback(database, steps=len(NAMES))
    migrate(database, at=now)
    assert found == shape(database)


def test_data_of_an_earlier_shape_survives(database: Database, now: datetime) -> None:
    migrate(database, at=now, migrations=MIGRATIONS[:1])
    database.sql("INSERT INTO projects VALUES ('id', 'name', '', '{}', true, NULL, 't', 't')")
    migrate(database, at=now)
    assert database.sql("SELECT id, name FROM projects") == [("id", "name")]


@pytest.mark.parametrize("steps", range(1, len(NAMES) + 1))
def test_a_rollback_leads_back_to_the_earlier_shape(
    database: Database, now: datetime, steps: int
) -> None:
    migrate(database, at=now, migrations=MIGRATIONS[: len(NAMES) - steps])
    earlier = shape(database)
    migrate(database, at=now)
    assert rollback(database, steps=steps) == NAMES[::-1][:steps]
    assert shape(database) == earlier
    assert migrate(database, at=now) == NAMES[len(NAMES) - steps :]


def test_more_steps_than_there_are_undo_all(database: Database, now: datetime) -> None:
    migrate(database, at=now)
    assert rollback(database, steps=99) == NAMES[::-1]
    assert [state.applied_at for state in status(database)] == [None] * len(NAMES)


def m999_broken(database: Database) -> None:
    database.define("CREATE TABLE half (a INTEGER)")
    database.define("CREATE INDEX half_a ON half (a)")
    database.define("ALTER TABLE half ADD COLUMN b TEXT")
    raise RuntimeError("killed half-way")


def m999_mended(database: Database) -> None:
    with contextlib.suppress(RuntimeError):
        m999_broken(database)


def undo_m999(database: Database) -> None:
    database.define("ALTER TABLE half DROP COLUMN b")
    database.define("DROP TABLE half")


def test_a_migration_that_fails_leaves_nothing_that_the_next_try_minds(
    database: Database, now: datetime
) -> None:
    broken = Migration(up=m999_broken, down=undo_m999)
    with pytest.raises(RuntimeError, match="killed half-way"):
        migrate(database, at=now, migrations=(*MIGRATIONS, broken))
    if type(database).__name__ != "MysqlConnection":  # which commits each statement by itself
        assert shape(database) == set()
    mended = (*MIGRATIONS, Migration(up=m999_mended, down=undo_m999))
    assert migrate(database, at=now, migrations=mended)[-1] == "m999_mended"
    assert rollback(database, steps=1, migrations=mended) == ["m999_mended"]
    require_current(database)


_MIGRATE_FOREVER = """
import sys, time
from llm_proxy.database_url import parse_database
from llm_proxy.store.opening import engine_of

database = engine_of(parse_database(sys.argv[1])).connect(create=True)
with database.migrating():
    database.claim()
    database.define("CREATE TABLE half (a INTEGER)")
    print("half-way", flush=True)
    time.sleep(60)
"""


def test_a_migrator_that_is_killed_leaves_no_lock(path: Path | DatabaseUrl, now: datetime) -> None:
    command = [sys.executable, "-c", _MIGRATE_FOREVER, write_database(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"half-way\n"
        other.kill()
    database = engine_of(path, patience_s=5).connect(create=True)
    assert migrate(database, at=now) == NAMES
    database.close()


def test_an_older_schema_says_how_to_update(database: Database, now: datetime) -> None:
    migrate(database, at=now, migrations=MIGRATIONS[:2])
    with pytest.raises(StoreError, match=f"{NAMES[2]} is missing.*llm-proxy db migrate"):
        require_current(database)


def test_a_newer_schema_is_refused_and_left_alone(database: Database, now: datetime) -> None:
    migrate(database, at=now)
    database.sql("INSERT INTO migrations VALUES ('m900_future', '2031-01-01T00:00:00.000000Z')")
    before = shape(database)
    for refused in (
        lambda: migrate(database, at=now),
        lambda: rollback(database, steps=1),
        lambda: require_current(database),
    ):
        with pytest.raises(StoreError, match="newer llm-proxy .m900_future is unknown here"):
            refused()
    assert shape(database) == before
    assert status(database)[-1].name == "m900_future"


def test_tables_that_appeared_meanwhile_are_somebody_elses(
    database: Database, now: datetime
) -> None:
    database.sql("CREATE TABLE theirs (a INTEGER)")
    before = shape(database)
    with pytest.raises(StoreError, match="another program and is left alone"):
        migrate(database, at=now)
    assert shape(database) == before


def test_a_file_of_ours_without_its_list_of_migrations_is_broken(
    sqlite_database: Database, now: datetime
) -> None:
    migrate(sqlite_database, at=now)
    sqlite_database.sql("DROP TABLE migrations")
    with pytest.raises(StoreError, match="lacks llm-proxy's table of migrations"):
        migrate(sqlite_database, at=now)


def test_texts_are_compared_as_bytes(database: Database, now: datetime) -> None:
    migrate(database, at=now)
    names = ["a", "B", "a ", "A", "ä", "_", "é", "e\u0301", "Z", "😀", "\uffff"]
    for name in names:
        database.sql(
            "INSERT INTO projects (id, name, description, metadata, is_active, created_at, "
            "updated_at) VALUES (?, ?, '', '{}', true, 't', 't')",
            (name, name),
        )
    found = [name for (name,) in database.sql("SELECT name FROM projects ORDER BY name")]
    assert found == sorted(names, key=lambda name: name.encode())
    assert database.sql("SELECT id FROM projects WHERE name = 'a'") == [("a",)]


def test_an_upstream_key_in_clear_is_refused_by_the_schema(
    database: Database, now: datetime
) -> None:
    migrate(database, at=now, migrations=MIGRATIONS[:1])
    database.sql("INSERT INTO projects VALUES ('id', 'name', '', '{}', true, NULL, 't', 't')")
    with pytest.raises(Exception, match="(?i)constraint"):
        database.sql("INSERT INTO api_keys VALUES ('id', 'openai', 'sk-in-clear')")
