"""A store with one token, for tests of what stands between a worker and the store."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from llm_proxy.database_url import DatabaseUrl
from llm_proxy.secrets import Cipher, new_encryption_key, token_digest
from llm_proxy.store.database import Store
from llm_proxy.store.projects import Project, create_project
from llm_proxy.store.tokens import Token, create_token

TOKEN = "t-1"
MADE_AT = datetime(2030, 1, 2, tzinfo=UTC)


def open_token_store(target: Path | DatabaseUrl, *, cap: int | None) -> Store:
    store = Store(target, cipher=Cipher(new_encryption_key()), patience_s=0.2)
    store.open(migrate=True)
    project = Project(
        id="p-1",
        name="p",
        description="",
        metadata={},
        is_active=True,
        deactivated_at=None,
        created_at=MADE_AT,
        updated_at=MADE_AT,
        api_keys={},
    )
    token = Token(
        id=TOKEN,
        name="",
        masked="sk-…",
        project_id="p-1",
        expires_at=None,
        is_active=True,
        deactivated_at=None,
        max_requests=cap,
        request_count=0,
        cache_hit_count=0,
        created_at=MADE_AT,
        last_used_at=None,
    )
    create_project(store, project)
    create_token(store, token, digest=token_digest(b"sk-token"))
    return store


def counted(store: Store) -> tuple[int, int, int]:
    """Requests counted of the token, permits reserved, leases open."""
    with store.reading() as database:
        ((count, reserved),) = database.sql("SELECT request_count, reserved FROM tokens")
        ((leases,),) = database.sql("SELECT COUNT(*) FROM leases")
    return count, reserved, leases
