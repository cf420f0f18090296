from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from llm_proxy.errors import StoreUnavailable
from llm_proxy.grants import Lease
from llm_proxy.server.ledger import SLOT_CELLS, USED, Ledger, boot_id, ledger_path, ledger_paths
from llm_proxy.server.settlement import Holder, Settlement
from llm_proxy.store.database import Store
from llm_proxy.store.leases import take_lease
from tests.server.token_store import MADE_AT, TOKEN, counted, open_token_store

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_token_store(tmp_path / "store.db", cap=100)
    yield store
    store.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "ledgers"


@pytest.fixture
async def settlement(store: Store, folder: Path) -> AsyncIterator[Settlement]:
    settlement = Settlement(store, host="h", folder=folder, look_every_s=0.01)
    yield settlement
    await settlement.close()


def stranger(folder: Path, name: str = "w-1") -> Holder:
    """A worker of an earlier server on this home."""
    return Holder(host="h", id=name, ledger=ledger_path(folder, name))


def spend(store: Store, holder: Holder, *, granted: int = 10, used: int = 4) -> Ledger:
    """What a worker does that takes a lease."""
    ledger = Ledger.create(holder.ledger, holder.id)
    lease = take_lease(store, TOKEN, granted, host=holder.host, holder=holder.id, at=MADE_AT)
    assert isinstance(lease, Lease)
    ledger.cells[ledger.open_slot(lease.id) * SLOT_CELLS + USED] += used
    return ledger


async def until_settled(store: Store, folder: Path) -> tuple[int, int, int]:
    async with asyncio.timeout(10):
        while ledger_paths(folder):
            await asyncio.sleep(0.002)
    return counted(store)


async def test_a_worker_that_ended_is_settled_exactly(
    settlement: Settlement, store: Store, folder: Path
) -> None:
    await settlement.start()
    one, two = settlement.begin(), settlement.begin()
    assert one.id != two.id and one.host == "h"
    ledger, other = spend(store, one), spend(store, two)
    ledger.close()
    settlement.ended(one)
    async with asyncio.timeout(10):
        while counted(store) != (4, 10, 1):
            await asyncio.sleep(0.002)
    other.close()
    settlement.ended(two)
    assert await until_settled(store, folder) == (8, 0, 0)


async def test_one_that_never_made_a_ledger_is_forgotten(
    settlement: Settlement, store: Store
) -> None:
    await settlement.start()
    settlement.ended(settlement.begin())
    await settlement.close()
    assert counted(store) == (0, 0, 0)


async def test_running_workers_are_left_alone(
    settlement: Settlement, store: Store, folder: Path
) -> None:
    await settlement.start()
    holder = settlement.begin()
    spend(store, holder).close()  # not even locked
    gone = settlement.begin()
    spend(store, gone, used=1).close()
    settlement.ended(gone)
    async with asyncio.timeout(10):
        while gone.ledger.exists():
            await asyncio.sleep(0.002)
    assert holder.ledger.exists()
    assert counted(store) == (1, 10, 1)


async def test_what_an_earlier_server_left_is_settled_before_the_start(
    settlement: Settlement, store: Store, folder: Path
) -> None:
    spend(store, stranger(folder)).close()
    await settlement.start()
    assert counted(store) == (4, 0, 0)
    assert list(folder.iterdir()) == []


async def test_a_worker_of_a_killed_server_is_waited_for(
    settlement: Settlement, store: Store, folder: Path
) -> None:
    ledger = spend(store, stranger(folder))
    await settlement.start()
    assert counted(store) == (0, 10, 1)
    ledger.cells[USED] += 1
    ledger.close()
    assert await until_settled(store, folder) == (5, 0, 0)


async def test_leases_without_a_ledger_pass_for_spent(settlement: Settlement, store: Store) -> None:
    take_lease(store, TOKEN, 10, host="h", holder="w", at=MADE_AT)
    take_lease(store, TOKEN, 5, host="other", holder="w", at=MADE_AT)
    await settlement.start()
    assert counted(store) == (10, 5, 1)


async def test_after_the_machine_started_anew_all_passes_for_spent(
    settlement: Settlement, store: Store, folder: Path
) -> None:
    holder = stranger(folder)
    spend(store, holder).close()
    content = holder.ledger.read_bytes().replace(boot_id().encode(), b"another boot".ljust(36))
    with holder.ledger.open("r+b") as file:
        file.write(content)
    await settlement.start()
    assert counted(store) == (10, 0, 0)


async def test_a_copied_ledger_is_not_believed(
    settlement: Settlement, store: Store, folder: Path
) -> None:
    """It is older than what was spent since."""
    holder = stranger(folder)
    ledger = spend(store, holder, used=1)
    copy = folder / "copy"
    shutil.copy(holder.ledger, copy)
    ledger.close()
    copy.replace(holder.ledger)
    await settlement.start()
    assert counted(store) == (10, 0, 0)


async def test_a_copied_ledger_of_an_own_worker_is_not_believed_either(
    settlement: Settlement, store: Store, folder: Path
) -> None:
    await settlement.start()
    holder = settlement.begin()
    ledger = spend(store, holder, used=1)
    copy = folder / "copy"
    shutil.copy(holder.ledger, copy)
    ledger.close()
    copy.replace(holder.ledger)
    settlement.ended(holder)
    assert await until_settled(store, folder) == (10, 0, 0)


@pytest.mark.parametrize("damage", [b"", b"no ledger at all"])
async def test_a_damaged_ledger_is_not_believed(
    settlement: Settlement, store: Store, folder: Path, damage: bytes
) -> None:
    holder = stranger(folder)
    spend(store, holder).close()
    holder.ledger.write_bytes(damage)
    await settlement.start()
    assert counted(store) == (10, 0, 0)
    assert not holder.ledger.exists()


async def test_a_ledger_under_another_name_is_not_believed(
    settlement: Settlement, store: Store, folder: Path
) -> None:
    holder, other = stranger(folder), stranger(folder, "w-2")
    spend(store, holder).close()
    spend(store, other, used=9).close()
    other.ledger.replace(holder.ledger)
    await settlement.start()
    assert counted(store) == (20, 0, 0)


async def test_a_store_that_fails_is_tried_again(
    settlement: Settlement, store: Store, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await settlement.start()
    holder = settlement.begin()
    spend(store, holder).close()
    store.close()
    settlement.ended(holder)
    async with asyncio.timeout(10):
        while "can't be settled" not in caplog.text:
            await asyncio.sleep(0.002)
    assert holder.ledger.exists()
    store.open(migrate=False)
    assert await until_settled(store, folder) == (4, 0, 0)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1


async def test_closing_settles_workers_that_have_just_ended(
    settlement: Settlement, store: Store
) -> None:
    await settlement.start()
    holder = settlement.begin()
    spend(store, holder).close()
    settlement.ended(holder)
    await settlement.close()
    assert counted(store) == (4, 0, 0)


async def test_what_can_not_be_settled_at_the_end_is_at_the_next_start(
    store: Store, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Settlement(store, host="h", folder=folder, close_s=0.05)
    await first.start()
    holder = first.begin()
    spend(store, holder).close()
    store.close()
    first.ended(holder)
    await first.close()
    assert "leases of 1 workers are left to the next start" in caplog.text
    store.open(migrate=False)
    second = Settlement(store, host="h", folder=folder)
    await second.start()
    assert counted(store) == (4, 0, 0)
    await second.close()


async def test_a_start_without_a_store_says_so(settlement: Settlement, store: Store) -> None:
    store.close()
    with pytest.raises(StoreUnavailable):
        await settlement.start()


async def test_a_ledger_that_can_not_be_opened_is_told_once(
    settlement: Settlement, store: Store, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir()
    (folder / "w-1.ledger").symlink_to(folder / "nowhere")
    await settlement.start()
    holder = settlement.begin()
    spend(store, holder).close()
    settlement.ended(holder)
    async with asyncio.timeout(10):
        while holder.ledger.exists():
            await asyncio.sleep(0.002)
    assert caplog.text.count("w-1.ledger can't be read: No such file") == 1


async def test_a_ledger_that_can_not_be_removed_holds_up_nothing(
    settlement: Settlement, store: Store, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger_path(folder, "w-1").mkdir(parents=True)
    await settlement.start()
    holder = settlement.begin()
    spend(store, holder).close()
    settlement.ended(holder)
    async with asyncio.timeout(10):
        while holder.ledger.exists():
            await asyncio.sleep(0.002)
    assert counted(store) == (4, 0, 0)
    assert caplog.text.count("w-1.ledger can't be removed") == 1
