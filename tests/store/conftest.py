"""A store on a real file, and projects and tokens to put into it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.database_url import DatabaseUrl
from llm_proxy.secrets import Cipher, Secret, mask, new_encryption_key, new_token, token_digest
from llm_proxy.store.database import Store
from llm_proxy.store.projects import Project, create_project
from llm_proxy.store.tokens import Token, create_token
from tests.mysql_database import mysql_database

NOW = datetime(2030, 1, 2, 3, 4, 5, 678901, UTC)


@pytest.fixture
def now() -> datetime:
    return NOW


MYSQL = os.environ.get("TEST_MYSQL_URL")  # of a server; its databases named test_… are dropped


@pytest.fixture(params=["sqlite", "postgresql", *(["mysql"] if MYSQL else [])])
def database_target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | DatabaseUrl]:
    """A place for a database, still blank."""
    if request.param == "sqlite":
        yield tmp_path / "store.db"
    elif request.param == "postgresql":
        yield request.getfixturevalue("postgres_url")
    else:
        assert MYSQL is not None
        with mysql_database(MYSQL) as url:
            yield url


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    """For what only a file can show."""
    store = Store(tmp_path / "store.db", cipher=Cipher(new_encryption_key()), patience_s=0.2)
    store.open(migrate=True)
    yield store
    store.close()


@pytest.fixture
def store(database_target: Path | DatabaseUrl) -> Iterator[Store]:
    store = Store(database_target, cipher=Cipher(new_encryption_key()), patience_s=0.2)
    store.open(migrate=True)
    yield store
    store.close()


@pytest.fixture
def add_project(store: Store) -> Callable[..., Project]:
    def add(**fields: Any) -> Project:
        project_id = str(uuid.uuid4())
        values: dict[str, Any] = {
            "id": project_id,
            "name": f"project {project_id}",
            "description": "",
            "metadata": {},
            "is_active": True,
            "deactivated_at": None,
            "created_at": NOW,
            "updated_at": NOW,
            "api_keys": {"openai": Secret("sk-upstream-0123456789")},
        }
        project = Project(**{**values, **fields})
        create_project(store, project)
        return project

    return add


@pytest.fixture
def add_token(
    store: Store, add_project: Callable[..., Project]
) -> Callable[..., tuple[Token, bytes]]:
    def add(**fields: Any) -> tuple[Token, bytes]:
        """The token and its digest; in a project of its own unless `project_id` is given."""
        secret = new_token().reveal()
        values: dict[str, Any] = {
            "id": str(uuid.uuid4()),
            "name": "",
            "masked": mask(secret),
            "project_id": fields.get("project_id") or add_project().id,
            "expires_at": None,
            "is_active": True,
            "deactivated_at": None,
            "max_requests": None,
            "request_count": 0,
            "cache_hit_count": 0,
            "created_at": NOW,
            "last_used_at": None,
        }
        token = Token(**{**values, **fields})
        digest = token_digest(secret.encode())
        create_token(store, token, digest=digest)
        return token, digest

    return add
