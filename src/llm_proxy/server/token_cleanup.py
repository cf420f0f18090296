"""Deactivates tokens that have expired, now and then; nothing is deleted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from llm_proxy.errors import LLMProxyError
from llm_proxy.server.channel import Change
from llm_proxy.store.database import Store
from llm_proxy.store.expiry import deactivate_expired

logger = logging.getLogger(__name__)

BATCH: Final = 200  # tokens in one transaction: others wait for it

Publish = Callable[[Sequence[Change]], Awaitable[None]]
Tell = Callable[[Sequence[str]], Awaitable[None]]


def _utc_now() -> datetime:
    return datetime.now(UTC)


async def _tell_nobody(token_ids: Sequence[str]) -> None:
    pass


class TokenCleanup:
    def __init__(
        self,
        store: Store,
        publish: Publish,
        *,
        interval_s: Callable[[], float],
        tell: Tell = _tell_nobody,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        """`tell` is called with the ids of tokens that were deactivated."""
        self._store = store
        self._publish = publish
        self._interval_s = interval_s
        self._tell = tell
        self._now = now
        self._has_failed = False

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._try()
            await asyncio.sleep(self._interval_s())

    async def _try(self) -> None:
        try:
            count = await self._clean_up()
        except LLMProxyError as exc:
            if not self._has_failed:
                logger.error("expired tokens can't be deactivated now: %s", exc)
            self._has_failed = True
            return
        self._has_failed = False
        if count:
            logger.info("%d expired tokens deactivated", count)

    async def _clean_up(self) -> int:
        """How many tokens it deactivated. Raises LLMProxyError."""
        count = 0
        while True:
            ids = await self._store.run(deactivate_expired, at=self._now(), limit=BATCH)
            if ids:
                await self._publish([Change(kind="token", id=token_id) for token_id in ids])
                await self._tell(ids)
            count += len(ids)
            if len(ids) < BATCH:
                return count
