"""What workers that ended had spent of their leases, told to the store; and hosts that are lost.

A ledger is settled by whoever gets its lock: the supervisor once its worker has ended, the next
server on this home after that. Where a count can't be trusted (the machine ended, too), or there
is no ledger, all that was granted passes for spent, so that a cap is never exceeded.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from llm_proxy.errors import LedgerError, StoreError
from llm_proxy.server.ledger import (
    LedgerContents,
    LockedLedger,
    ledger_path,
    ledger_paths,
    lock_ledger,
    remove_drafts,
)
from llm_proxy.store.database import Store
from llm_proxy.store.hosts import beat, write_off_host
from llm_proxy.store.leases import holders_of, settle_holder, write_off_holder

logger = logging.getLogger(__name__)

BEAT_EVERY_S: Final = 10.0
LOST_AFTER_BEATS: Final = 30  # of ours without a word of another host: five minutes
LOOK_EVERY_S: Final = 2.0  # for ledgers whose owners were another server's
CLOSE_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who a worker is to the store."""

    host: str
    id: str
    ledger: Path


class Settlement:
    def __init__(
        self,
        store: Store,
        *,
        host: str,
        folder: Path,
        look_every_s: float = LOOK_EVERY_S,
        beat_every_s: float = BEAT_EVERY_S,
    ) -> None:
        """`folder` holds the ledgers; it is this server's alone."""
        self._store = store
        self._host = host
        self._folder = folder
        self._look_every_s = look_every_s
        self._beat_every_s = beat_every_s
        self._running: set[str] = set()  # holders that may still spend
        self._ended: set[str] = set()  # own ones that are to be settled
        self._own: set[str] = set()  # both of these: the machine has not ended since they began
        self._news = asyncio.Event()
        self._others: dict[str, tuple[str, int]] = {}  # hosts: the last word, our beats since
        self._tasks: list[asyncio.Task[None]] = []
        self._complaints: dict[str, str] = {}

    async def start(self) -> None:
        """Settles what earlier servers left, before a worker runs. Raises StoreError."""
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, exist_ok=True)
        remove_drafts(self._folder)
        await self._beat()
        # In this order: a worker that is left has a ledger before it has a lease.
        holders = await self._store.run(holders_of, self._host)
        for holder in set(holders) - set(ledger_paths(self._folder)):
            await self._write_off(holder)
        await self._look()
        self._tasks = [
            asyncio.create_task(self._keep(self._look, self._look_every_s), name="settlement"),
            asyncio.create_task(self._keep(self._beat, self._beat_every_s), name="heartbeat"),
        ]

    def begin(self) -> Holder:
        """For a worker that is about to be started."""
        holder = str(uuid.uuid4())
        self._running.add(holder)
        self._own.add(holder)
        return Holder(host=self._host, id=holder, ledger=ledger_path(self._folder, holder))

    def ended(self, holder: Holder) -> None:
        """Its process is gone; it is settled soon."""
        self._running.discard(holder.id)
        self._ended.add(holder.id)
        self._news.set()

    async def close(self) -> None:
        """Settles workers that have ended, unless that takes long: then the next server does it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                while self._ended and not await self._try(self._look):
                    await asyncio.sleep(self._look_every_s / 4)
        if self._ended:
            logger.warning("%d workers' leases are left to the next start", len(self._ended))

    async def _keep(self, work: Callable[[], Awaitable[None]], every_s: float) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(every_s):
                    if work == self._look:
                        await self._news.wait()
                    else:
                        await asyncio.Event().wait()
            self._news.clear()
            await self._try(work)

    async def _try(self, work: Callable[[], Awaitable[None]]) -> bool:
        raise NotImplementedError

    async def _look(self) -> None:
        raise NotImplementedError

    async def _beat(self) -> None:
        raise NotImplementedError

    async def _write_off(self, holder: str) -> None:
        raise NotImplementedError
