"""Databases as the older program leaves them."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

SCHEMA = """
CREATE TABLE projects (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, api_key TEXT NOT NULL,
    is_active BOOLEAN NOT NULL DEFAULT 1, deactivated_at DATETIME,
    created_at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE tokens (
    id TEXT PRIMARY KEY, token TEXT NOT NULL UNIQUE,
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    expires_at DATETIME, is_active BOOLEAN NOT NULL DEFAULT 1, deactivated_at DATETIME,
    request_count INTEGER NOT NULL DEFAULT 0, max_requests INTEGER,
    created_at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP, last_used_at DATETIME,
    cache_hit_count INTEGER NOT NULL DEFAULT 0);
CREATE TABLE audit_events (id TEXT PRIMARY KEY, timestamp DATETIME, action TEXT);
"""
# The first layout it had.
FIRST_SCHEMA = """
CREATE TABLE projects (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, openai_api_key TEXT);
CREATE TABLE tokens (token TEXT PRIMARY KEY, project_id TEXT NOT NULL, expires_at DATETIME);
"""


class LegacyDatabase:
    def __init__(self, path: Path, schema: str = SCHEMA) -> None:
        self.path = path
        self._run(schema)

    def add(self, table: str, **columns: Any) -> None:
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        with contextlib.closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(
                f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(columns.values())
            )

    def _run(self, script: str) -> None:
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            connection.executescript(script)
