"""What workers that ended had spent of their leases, told to the store.

A ledger is settled by whoever gets its lock: the supervisor once its worker has ended, or the next
server on this home. Where a count can't be trusted (the machine ended, too), or there is no
ledger, all that was granted passes for spent, so that a cap is never exceeded.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llm_proxy.errors import LedgerError, StoreError
from llm_proxy.grants import LeaseUse
from llm_proxy.server.ledger import (
    LockedLedger,
    ledger_path,
    ledger_paths,
    lock_ledger,
    remove_drafts,
)
from llm_proxy.store.database import Store
from llm_proxy.store.leases import holders_of, settle_holder, write_off_holder

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 2.0  # for ledgers that workers of an earlier server still held
CLOSE_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who a worker is to the store, and where it keeps its ledger."""

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
        close_s: float = CLOSE_S,
    ) -> None:
        """`folder` holds the ledgers; it is this server's alone."""
        self._store = store
        self._host = host
        self._folder = folder
        self._look_every_s = look_every_s
        self._close_s = close_s
        self._running: set[str] = set()  # holders that may still spend
        self._ended: set[str] = set()  # of this server, to be settled
        self._troubled: set[str] = set()  # holders whose ledger can't be opened or removed
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_store_lost = False

    async def start(self) -> None:
        """Settles what earlier servers left; call it before a worker runs. Raises StoreError."""
        with contextlib.suppress(FileExistsError):
            self._folder.mkdir(mode=0o700)
        remove_drafts(self._folder)
        # In this order: a worker that is left has its ledger before its first lease.
        holders = await self._store.run(holders_of, self._host)
        paths = ledger_paths(self._folder)
        for holder in holders:
            if holder not in paths:
                await self._settle(holder, None)
        await self._look()
        self._task = asyncio.create_task(self._keep_looking(), name="settlement")

    def begin(self) -> Holder:
        """For a worker that is about to be started."""
        holder = str(uuid.uuid4())
        self._running.add(holder)
        return Holder(host=self._host, id=holder, ledger=ledger_path(self._folder, holder))

    def ended(self, holder: Holder) -> None:
        """Its process is gone; it is settled soon."""
        self._running.discard(holder.id)
        self._ended.add(holder.id)
        self._news.set()

    async def close(self) -> None:
        """Settles workers that have ended, unless that takes long: then the next start does it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._close_s):
                while self._ended and not await self._try_to_look():
                    await asyncio.sleep(self._look_every_s / 10)
        if self._ended:
            logger.warning("leases of %d workers are left to the next start", len(self._ended))

    async def _keep_looking(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._look_every_s):
                    await self._news.wait()
            self._news.clear()
            await self._try_to_look()

    async def _try_to_look(self) -> bool:
        try:
            await self._look()
        except StoreError as exc:
            if not self._is_store_lost:
                logger.error("leases of ended workers can't be settled until they can: %s", exc)
            self._is_store_lost = True
            return False
        self._is_store_lost = False
        return True

    async def _look(self) -> None:
        """Settles whatever nobody holds any more. Raises StoreError."""
        paths = ledger_paths(self._folder)
        for holder in (self._ended | paths.keys()) - self._running:
            if holder not in paths:  # it never made one; or somebody took it away
                await self._settle(holder, None)
                continue
            try:
                await self._look_at(paths[holder], holder)
            except LedgerError as exc:
                if holder not in self._troubled:
                    logger.error("%s", exc)
                self._troubled.add(holder)

    async def _look_at(self, path: Path, holder: str) -> None:
        ledger = lock_ledger(path)
        if ledger is not None:  # else its owner lives: a worker of a server that was killed
            with contextlib.closing(ledger):
                await self._settle(holder, self._uses(ledger, holder))
                ledger.remove()

    def _uses(self, ledger: LockedLedger, holder: str) -> Mapping[int, LeaseUse] | None:
        """None: what the ledger says can't be trusted."""
        try:
            contents = ledger.read()
        except LedgerError as exc:
            logger.error("%s; its worker's leases pass for spent", exc)
            return None
        # A worker of our own can't have ended with the machine.
        is_whole = contents.is_of_this_boot or holder in self._ended
        is_own = contents.is_original and contents.holder == holder
        return contents.uses if is_whole and is_own else None

    async def _settle(self, holder: str, uses: Mapping[int, LeaseUse] | None) -> None:
        if uses is None:
            count = await self._store.run(write_off_holder, host=self._host, holder=holder)
        else:
            count = await self._store.run(settle_holder, uses, host=self._host, holder=holder)
        self._ended.discard(holder)
        if count:
            how = "as if all was spent" if uses is None else "exactly"
            logger.info("%d leases of a worker that ended were settled %s", count, how)
