from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_proxy.errors import StoreUnavailable
from llm_proxy.grants import Lease, LeaseUse, NoPermits
from llm_proxy.server.lease_source import StoreLeaseSource
from llm_proxy.store.database import Store
from tests.server.token_store import TOKEN, counted, open_token_store

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_token_store(tmp_path / "store.db", cap=100)
    yield store
    store.close()


@pytest.fixture
def source(store: Store) -> StoreLeaseSource:
    return StoreLeaseSource(store, "h", "w")


async def test_a_lease_is_taken_extended_settled_and_given_back(
    store: Store, source: StoreLeaseSource
) -> None:
    lease = await source.take(TOKEN, 10)
    assert isinstance(lease, Lease) and lease.granted == 10
    await source.settle([LeaseUse(lease.id, 4, 0.0)])
    assert counted(store) == (4, 6, 1)
    assert await source.extend(LeaseUse(lease.id, 6, 0.0), 10) == Lease(lease.id, 20)
    await source.give_back([LeaseUse(lease.id, 7, 0.0)])
    assert counted(store) == (7, 0, 0)
    assert await source.extend(LeaseUse(lease.id, 7, 0.0), 10) is None


async def test_no_token_no_lease_and_no_permit_no_lease(
    store: Store, source: StoreLeaseSource
) -> None:
    assert await source.take("another", 10) is None
    for _ in range(100):
        assert isinstance(await source.take(TOKEN, 1), Lease)
    assert await source.take(TOKEN, 1) == NoPermits(is_final=False)


async def test_nothing_to_tell_asks_nothing(store: Store, source: StoreLeaseSource) -> None:
    store.close()
    await source.settle([])
    await source.give_back([])


async def test_a_failing_store_is_told(store: Store, source: StoreLeaseSource) -> None:
    store.close()
    with pytest.raises(StoreUnavailable):
        await source.take(TOKEN, 1)
    with pytest.raises(StoreUnavailable):
        await source.settle([LeaseUse(1, 1, 0.0)])
    with pytest.raises(StoreUnavailable):
        await source.settle([])  # it looks whether that lease was granted
    with pytest.raises(StoreUnavailable):
        await source.settle([])


async def test_a_lease_that_nobody_heard_of_is_given_back(
    store: Store, source: StoreLeaseSource
) -> None:
    kept = await source.take(TOKEN, 5)
    assert isinstance(kept, Lease)
    with store.writing():  # so that the store's thread has begun when it is cancelled
        taking = asyncio.create_task(source.take(TOKEN, 10))
        await asyncio.sleep(0.01)
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
    later = await source.take(TOKEN, 7)
    assert isinstance(later, Lease)
    assert counted(store) == (0, 22, 3)
    await source.settle([LeaseUse(kept.id, 1, 0.0)])
    assert counted(store) == (1, 11, 2)
    await source.give_back([LeaseUse(kept.id, 1, 0.0), LeaseUse(later.id, 7, 0.0)])
    assert counted(store) == (8, 0, 0)
