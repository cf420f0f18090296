"""Says to other hosts on the same database that this one lives, and notices which of them don't."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import UTC, datetime
from typing import Final

from llm_proxy.errors import StoreError
from llm_proxy.store.database import Store
from llm_proxy.store.hosts import beat, leave, write_off_host

logger = logging.getLogger(__name__)

BEAT_EVERY_S: Final = 10.0
# Of ours, without a word of another host: five minutes. Clocks are not compared, and whoever was
# stopped itself (or had no database) counts no beats meanwhile.
LOST_AFTER_BEATS: Final = 30


class HostWatch:
    def __init__(self, store: Store, *, host: str, beat_every_s: float = BEAT_EVERY_S) -> None:
        self._store = store
        self._host = host
        self._beat_every_s = beat_every_s
        self._silent: dict[str, tuple[str, int]] = {}  # others: the last word, our beats since
        self._is_store_lost = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when other hosts know of this one. Raises StoreError."""
        await self.beat()
        self._task = asyncio.create_task(self._run(), name="host watch")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            with contextlib.suppress(StoreError):
                await self._store.run(leave, self._host)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._beat_every_s)
            try:
                await self.beat()
            except StoreError as exc:
                if not self._is_store_lost:
                    logger.error("other hosts can't be told that this one lives: %s", exc)
                self._is_store_lost = True
            else:
                self._is_store_lost = False

    async def beat(self) -> None:
        """Raises StoreError."""
        words = await self._store.run(beat, self._host, datetime.now(UTC))
        silent = {}
        for host, word in words.items():
            before, beats = self._silent.get(host, ("", -1))
            silent[host] = (word, beats + 1 if before == word else 0)
        self._silent = silent
        for host, (word, beats) in silent.items():
            if beats >= LOST_AFTER_BEATS:
                await self._write_off(host, word)

    async def _write_off(self, host: str, word: str) -> None:
        count = await self._store.run(write_off_host, host, word)
        if count:
            logger.warning("host %s is lost: its %d leases pass for spent", host, count)
