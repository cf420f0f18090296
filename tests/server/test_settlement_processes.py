"""Real processes that spend one token and are killed in the middle of it."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_proxy.database_url import DatabaseUrl
from llm_proxy.server.settlement import Holder, Settlement
from llm_proxy.store.database import Store
from tests.server.token_store import counted, open_token_store

pytestmark = pytest.mark.anyio

CAP = 800
KILLS = 2  # of each of two processes, and then of both with the server
SPENDER = Path(__file__).with_name("lease_spender.py")
# Coverage takes as long as all that they do, and is lost with the killed ones anyway.
_UNMEASURED = {name: os.environ[name] for name in os.environ if not name.startswith("COVERAGE_")}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the supervisor's loop


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Path | DatabaseUrl:
    if request.param == "sqlite":
        return tmp_path / "store.db"
    url: DatabaseUrl = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def store(target: Path | DatabaseUrl) -> Iterator[Store]:
    store = open_token_store(target, cap=CAP)
    yield store
    store.close()


class Spenders:
    def __init__(self, target: Path | DatabaseUrl) -> None:
        self._database = target.reveal() if isinstance(target, DatabaseUrl) else str(target)
        self.sent = 0
        self.killed = 0

    async def run(self, holder: Holder, *, until: int | None) -> None:
        """Kills it once it has sent so many requests; else waits for its end."""
        arguments = [self._database, str(holder.ledger), holder.id]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(SPENDER), *arguments),
            stdout=asyncio.subprocess.PIPE,
            env=_UNMEASURED,
        )
        assert process.stdout is not None
        try:
            if until is not None:
                sent = len(await process.stdout.readexactly(until))
                self.killed += 1
                process.kill()
                self.sent += sent
            rest = await process.stdout.read()
            self.sent += len(rest)
        except BaseException:
            process.kill()
            raise
        finally:
            await process.wait()


async def test_killed_processes_spend_no_permit_twice_and_lose_none(
    store: Store, target: Path | DatabaseUrl, tmp_path: Path
) -> None:
    random.seed(7)
    folder, spenders = tmp_path / "ledgers", Spenders(target)
    server = Settlement(store, host="h", folder=folder, look_every_s=0.01)
    await server.start()

    async def keep_one() -> None:
        for _ in range(KILLS):
            holder = server.begin()
            await spenders.run(holder, until=random.randint(1, 100))
            server.ended(holder)

    async with asyncio.timeout(100):
        await asyncio.gather(keep_one(), keep_one())
        holders = server.begin(), server.begin()
        await asyncio.gather(*(spenders.run(holder, until=50) for holder in holders))
        await server.close()  # it never hears of their end

        successor = Settlement(store, host="h", folder=folder, look_every_s=0.01)
        await successor.start()
        holder = successor.begin()
        await spenders.run(holder, until=None)
        successor.ended(holder)
        await successor.close()
    assert counted(store) == (CAP, 0, 0)
    assert CAP - spenders.killed <= spenders.sent <= CAP
    assert spenders.killed == 2 * KILLS + 2
    assert list(folder.iterdir()) == []
