from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llm_proxy.errors import StoreUnavailable
from llm_proxy.secrets import Cipher, Secret, new_encryption_key, token_digest
from llm_proxy.server.grant_source import StoreGrantSource
from llm_proxy.store.database import Store
from llm_proxy.store.projects import Project, create_project
from llm_proxy.store.tokens import Token, create_token

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 11, 21, tzinfo=UTC)


def _open_store(path: Path) -> Store:
    store = Store(path, cipher=Cipher(new_encryption_key()))
    store.open(migrate=True)
    project = Project(
        id="p",
        name="p",
        description="",
        metadata={},
        is_active=True,
        deactivated_at=None,
        created_at=NOW,
        updated_at=NOW,
        api_keys={"openai": Secret("sk-upstream")},
    )
    token = Token(
        id="t",
        name="",
        masked="sk-…",
        project_id="p",
        expires_at=NOW + timedelta(days=1),
        is_active=True,
        deactivated_at=None,
        max_requests=5,
        request_count=0,
        cache_hit_count=0,
        created_at=NOW,
        last_used_at=None,
    )
    create_project(store, project)
    create_token(store, token, digest=token_digest(b"sk-token"))
    return store


async def test_a_grant_comes_from_the_store(tmp_path: Path) -> None:
    store = _open_store(tmp_path / "db")
    source = StoreGrantSource(store)
    grant = await source.load(token_digest(b"sk-token"))
    assert grant is not None
    assert (grant.token_id, grant.max_requests) == ("t", 5)
    assert grant.upstream_keys == {"openai": Secret("sk-upstream")}
    assert await source.load(token_digest(b"sk-other")) is None
    assert source.lookups == {"found": 1, "unknown": 1, "failed": 0}
    store.close()


async def test_a_closed_store_is_unavailable(tmp_path: Path) -> None:
    store = _open_store(tmp_path / "db")
    store.close()
    source = StoreGrantSource(store)
    with pytest.raises(StoreUnavailable):
        await source.load(token_digest(b"sk-token"))
    assert source.lookups == {"found": 0, "unknown": 0, "failed": 1}
