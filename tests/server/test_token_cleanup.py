from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llm_proxy.secrets import Cipher, new_encryption_key, token_digest
from llm_proxy.server.channel import Change
from llm_proxy.server.token_cleanup import BATCH, TokenCleanup
from llm_proxy.store.database import Store
from llm_proxy.store.projects import Project, create_project
from llm_proxy.store.tokens import Token, create_token, get_token, list_tokens

pytestmark = pytest.mark.anyio

NOW = datetime(2030, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store.db", cipher=Cipher(new_encryption_key()))
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
        api_keys={},
    )
    create_project(store, project)
    yield store
    store.close()


def add_tokens(store: Store, count: int, *, expires_at: datetime) -> set[str]:
    tokens = [
        Token(
            id=str(uuid.uuid4()),
            name="",
            masked="",
            project_id="p",
            expires_at=expires_at,
            is_active=True,
            deactivated_at=None,
            max_requests=None,
            request_count=0,
            cache_hit_count=0,
            created_at=NOW,
            last_used_at=None,
        )
        for _ in range(count)
    ]
    with store.writing():
        for token in tokens:
            create_token(store, token, digest=token_digest(token.id.encode()))
    return {token.id for token in tokens}


class Listener:
    """Whoever is told of a clean-up."""

    def __init__(self) -> None:
        self.published: list[Change] = []
        self.told: list[str] = []
        self.news = asyncio.Event()

    async def publish(self, changes: Sequence[Change]) -> None:
        self.published += changes

    async def tell(self, token_ids: Sequence[str]) -> None:
        self.told += token_ids
        self.news.set()


async def run_until(cleanup: TokenCleanup, happens: Callable[[], Awaitable[object]]) -> None:
    running = asyncio.create_task(cleanup.run())
    async with asyncio.timeout(30):
        await happens()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_expired_tokens_are_deactivated_and_everybody_is_told(store: Store) -> None:
    ended = add_tokens(store, BATCH + 1, expires_at=NOW)
    (lasting,) = add_tokens(store, 1, expires_at=NOW + HOUR)
    listener, told = Listener(), asyncio.Event()

    async def tell(token_ids: Sequence[str]) -> None:
        await listener.tell(token_ids)
        if len(listener.told) == len(ended):
            told.set()

    cleanup = TokenCleanup(
        store, listener.publish, interval_s=lambda: 3600.0, tell=tell, now=lambda: NOW
    )
    await run_until(cleanup, told.wait)
    assert set(listener.told) == ended
    assert {change.id for change in listener.published} == ended
    assert {change.kind for change in listener.published} == {"token"}
    active = [token.id for token in list_tokens(store, limit=1000).items if token.is_active]
    assert active == [lasting]


async def test_it_is_done_again_and_again(store: Store) -> None:
    listener, now = Listener(), [NOW]
    cleanup = TokenCleanup(
        store,
        listener.publish,
        interval_s=lambda: 0.001,
        tell=listener.tell,
        now=lambda: now[0],
    )
    (token_id,) = add_tokens(store, 1, expires_at=NOW + HOUR)

    async def expires() -> None:
        assert listener.told == []
        now[0] += HOUR
        await listener.news.wait()

    await run_until(cleanup, expires)
    token = get_token(store, token_id)
    assert token is not None
    assert (token.is_active, token.deactivated_at) == (False, NOW + HOUR)


async def test_a_store_that_fails_is_logged_once_and_tried_again(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_tokens(store, 1, expires_at=NOW)
    listener, tries = Listener(), 0
    file, hidden = tmp_path / "store.db", tmp_path / "hidden.db"
    file.rename(hidden)

    def interval_s() -> float:
        nonlocal tries
        tries += 1
        if tries == 3:
            hidden.rename(file)
        return 0.001

    cleanup = TokenCleanup(
        store, listener.publish, interval_s=interval_s, tell=listener.tell, now=lambda: NOW
    )
    with caplog.at_level(logging.INFO):
        await run_until(cleanup, listener.news.wait)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "expired tokens can't be deactivated now" in errors[0].getMessage()
