"""Follows the `changes` table, so that workers also learn what other processes wrote."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from llm_proxy.errors import LLMProxyError
from llm_proxy.server.channel import Change

logger = logging.getLogger(__name__)

PATIENCE_S = 2.0  # with a database that doesn't answer
INTERVAL_S = 0.5  # with the time to publish, what other hosts write is obeyed within a second

Read = Callable[[int], Awaitable[tuple[int, Sequence[Change]]]]
Publish = Callable[[Sequence[Change]], Awaitable[None]]


class ChangeFeed:
    def __init__(
        self,
        read: Read,
        publish: Publish,
        *,
        last_id: int,
        on_poll: Callable[[bool], None] = lambda is_healthy: None,
        interval_s: float = INTERVAL_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`read` gives the changes after an id, with the last one's id; `last_id` is known.

        `on_poll` is told each time whether they could be read.
        """
        self._read = read
        self._publish = publish
        self._last_id = last_id
        self._on_poll = on_poll
        self._interval_s = interval_s
        self._patience_s = patience_s
        self.is_healthy = True

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            await self._poll()

    async def _poll(self) -> None:
        try:
            while await self._publish_next():
                pass
        except (LLMProxyError, TimeoutError) as exc:
            reason = str(exc) or f"the database didn't answer within {self._patience_s:g} s"
            if self.is_healthy:
                logger.error("changes can't be followed, not ready until they can: %s", reason)
            self._set_health(False)
            return
        if not self.is_healthy:
            logger.info("changes can be followed again")
        self._set_health(True)

    def _set_health(self, is_healthy: bool) -> None:
        self.is_healthy = is_healthy
        self._on_poll(is_healthy)

    async def _publish_next(self) -> bool:
        """Whether there may be more: a store gives a long list in parts."""
        async with asyncio.timeout(self._patience_s):
            last_id, changes = await self._read(self._last_id)
        if changes:
            # What this server wrote itself comes here again. To obey twice costs a worker one
            # read; to tell its own rows from others' by kind and id would one day miss a change.
            await self._publish(changes)
        self._last_id = last_id
        return bool(changes)
