"""The schema, step by step. A step that was released is never edited; a change is a new step.

Steps are written in SQLite's words, which `Database.define` puts into those of the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from llm_proxy.errors import StoreError
from llm_proxy.store.opening import Database
from llm_proxy.store.timestamps import from_stored, to_stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    up: Callable[[Database], None]
    down: Callable[[Database], None]

    @property
    def name(self) -> str:
        return self.up.__name__


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationState:
    name: str
    applied_at: datetime | None


def m001_projects(database: Database) -> None:
    database.define(
        """CREATE TABLE projects (
            id TEXT NOT NULL PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            description TEXT NOT NULL,
            metadata TEXT NOT NULL,
            is_active INTEGER NOT NULL CHECK (is_active IN (0, 1)),
            deactivated_at TEXT,
            created_at TEXT NOT NULL,
            updated_at TEXT NOT NULL
        )"""
    )
    database.define(
        """CREATE TABLE api_keys (
            project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
            api TEXT NOT NULL,
            encrypted TEXT NOT NULL CHECK (encrypted LIKE 'enc:v1:%'),
            PRIMARY KEY (project_id, api)
        )"""
    )
    database.define("CREATE TABLE meta (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL)")


def undo_m001_projects(database: Database) -> None:
    for table in ("meta", "api_keys", "projects"):
        database.define(f"DROP TABLE {table}")


def m002_tokens(database: Database) -> None:
    database.define(
        """CREATE TABLE tokens (
            id TEXT NOT NULL PRIMARY KEY,
            digest TEXT NOT NULL UNIQUE CHECK (length(digest) = 64),
            previous_digest TEXT UNIQUE CHECK (length(previous_digest) = 64),
            previous_valid_until TEXT,
            masked TEXT NOT NULL,
            name TEXT NOT NULL,
            project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
            expires_at TEXT,
            is_active INTEGER NOT NULL CHECK (is_active IN (0, 1)),
            deactivated_at TEXT,
            max_requests INTEGER CHECK (max_requests > 0),
            request_count INTEGER NOT NULL DEFAULT 0,
            cache_hit_count INTEGER NOT NULL DEFAULT 0,
            created_at TEXT NOT NULL,
            last_used_at TEXT
        )"""
    )
    database.define("CREATE INDEX tokens_newest ON tokens (created_at, id)")
    database.define("CREATE INDEX tokens_of_project ON tokens (project_id, created_at, id)")


def undo_m002_tokens(database: Database) -> None:
    database.define("DROP TABLE tokens")


def m003_changes(database: Database) -> None:
    # AUTOINCREMENT: an id is never used again, so that a reader's position stays right.
    database.define(
        """CREATE TABLE changes (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            kind TEXT NOT NULL,
            object_id TEXT NOT NULL,
            at TEXT NOT NULL
        )"""
    )


def undo_m003_changes(database: Database) -> None:
    database.define("DROP TABLE changes")


_LIMIT_COLUMNS = ("rate_limit TEXT", "rate_burst INTEGER", "max_concurrent INTEGER")
_TOKEN_COLUMNS = (
    "not_before TEXT",
    "idle_timeout_s INTEGER",
    "scope TEXT",  # a JSON object; NULL: it is narrowed to nothing
    "reserved INTEGER NOT NULL DEFAULT 0",  # permits that leases hold and have not spent
    *_LIMIT_COLUMNS,
)


def m004_limits(database: Database) -> None:
    for column in _TOKEN_COLUMNS:
        database.define(f"ALTER TABLE tokens ADD COLUMN {column}")
    for column in _LIMIT_COLUMNS:
        database.define(f"ALTER TABLE projects ADD COLUMN {column}")


def undo_m004_limits(database: Database) -> None:
    for column in _TOKEN_COLUMNS:
        database.define(f"ALTER TABLE tokens DROP COLUMN {column.split()[0]}")
    for column in _LIMIT_COLUMNS:
        database.define(f"ALTER TABLE projects DROP COLUMN {column.split()[0]}")


def m005_leases(database: Database) -> None:
    database.define(
        """CREATE TABLE hosts (
            id TEXT NOT NULL PRIMARY KEY,
            last_seen_at TEXT NOT NULL
        )"""
    )
    # AUTOINCREMENT: what a ledger says of a lease must never be taken for another's.
    database.define(
        """CREATE TABLE leases (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            token_id TEXT NOT NULL REFERENCES tokens (id) ON DELETE CASCADE,
            host TEXT NOT NULL,
            holder TEXT NOT NULL,
            granted INTEGER,
            settled INTEGER NOT NULL DEFAULT 0,
            taken_at TEXT NOT NULL
        )"""
    )
    database.define("CREATE INDEX leases_of_token ON leases (token_id)")
    database.define("CREATE INDEX leases_of_holder ON leases (host, holder)")


def undo_m005_leases(database: Database) -> None:
    database.define("DROP TABLE leases")
    database.define("DROP TABLE hosts")


def m006_audit(database: Database) -> None:
    database.define(
        """CREATE TABLE audit_records (
            id TEXT NOT NULL PRIMARY KEY,
            timestamp TEXT NOT NULL,
            chain TEXT NOT NULL,
            sequence INTEGER NOT NULL,
            action TEXT NOT NULL,
            actor TEXT NOT NULL,
            outcome TEXT NOT NULL,
            client_ip TEXT,
            request_id TEXT,
            method TEXT,
            path TEXT,
            user_agent TEXT,
            project_id TEXT,
            token_id TEXT,
            reason TEXT,
            details LONGTEXT NOT NULL,
            previous_hash TEXT NOT NULL,
            hash TEXT NOT NULL,
            UNIQUE (chain, sequence)
        )"""
    )
    database.define("CREATE INDEX audit_newest ON audit_records (timestamp, id)")
    for column in ("action", "project_id", "token_id", "client_ip"):
        database.define(
            f"CREATE INDEX audit_by_{column} ON audit_records ({column}, timestamp, id)"
        )
    database.define(
        """CREATE TABLE audit_chains (
            chain TEXT NOT NULL PRIMARY KEY,
            sequence INTEGER NOT NULL,
            hash TEXT NOT NULL,
            kept_from INTEGER NOT NULL
        )"""
    )


def undo_m006_audit(database: Database) -> None:
    for table in ("audit_chains", "audit_records"):
        database.define(f"DROP TABLE {table}")


MIGRATIONS: tuple[Migration, ...] = (
    Migration(up=m001_projects, down=undo_m001_projects),
    Migration(up=m002_tokens, down=undo_m002_tokens),
    Migration(up=m003_changes, down=undo_m003_changes),
    Migration(up=m004_limits, down=undo_m004_limits),
    Migration(up=m005_leases, down=undo_m005_leases),
    Migration(up=m006_audit, down=undo_m006_audit),
)


def migrate(
    database: Database,
    *,
    at: datetime,
    migrations: tuple[Migration, ...] = MIGRATIONS,
) -> list[str]:
    """Applies what is missing; the names of what it applied.

    All of it or nothing, but on MySQL step by step: a half step is made whole by the next try.
    """
    done = []
    with database.migrating():
        database.claim()
        for migration in _pending(database, migrations):
            migration.up(database)
            database.sql(
                "INSERT INTO migrations (name, applied_at) VALUES (?, ?)",
                (migration.name, to_stored(at)),
            )
            done.append(migration.name)
    return done


def rollback(
    database: Database,
    *,
    steps: int,
    migrations: tuple[Migration, ...] = MIGRATIONS,
) -> list[str]:
    """Undoes the last `steps` migrations, all or none; the names, the newest first."""
    undone = []
    with database.migrating():
        _pending(database, migrations)
        applied = _applied(database)
        for migration in [m for m in reversed(migrations) if m.name in applied][:steps]:
            migration.down(database)
            database.sql("DELETE FROM migrations WHERE name = ?", (migration.name,))
            undone.append(migration.name)
    return undone


def status(
    database: Database,
    *,
    migrations: tuple[Migration, ...] = MIGRATIONS,
) -> list[MigrationState]:
    """Every step that this program knows or the database has seen, in order."""
    applied = _applied(database)
    names = [migration.name for migration in migrations]
    names += [name for name in applied if name not in names]
    return [MigrationState(name=name, applied_at=applied.get(name)) for name in names]


def require_current(database: Database) -> None:
    if missing := _pending(database, MIGRATIONS):
        raise StoreError(
            f"the database {database.shown} has an older schema ({missing[0].name} is missing); "
            "bring it up to date with: llm-proxy db migrate"
        )


def _applied(database: Database) -> dict[str, datetime]:
    if not database.table_exists("migrations"):
        raise StoreError(f"the database {database.shown} {database.lacks_migrations}")
    rows = database.sql("SELECT name, applied_at FROM migrations ORDER BY name")
    return {name: from_stored(applied_at) for name, applied_at in rows}


def _pending(database: Database, migrations: tuple[Migration, ...]) -> list[Migration]:
    applied = _applied(database)
    known = {migration.name for migration in migrations}
    if newer := [name for name in applied if name not in known]:
        raise StoreError(
            f"the database {database.shown} was written by a newer llm-proxy "
            f"({newer[0]} is unknown here); upgrade llm-proxy or choose another file"
        )
    return [migration for migration in migrations if migration.name not in applied]
