"""The throw-away mock during one run: whether it was too busy, and who hung up on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import httpx
import msgspec

from llm_proxy.benchmark.mock_figures import MockFigures
from llm_proxy.benchmark.process_usage import UsageWatch
from llm_proxy.secrets import Secret

STATS_PATH: Final = "/mock/stats"
_SHORTEST_S: Final = 0.5  # CPU time comes in hundredths of a second
_LAST_WITHIN_S: Final = 2.0
_LOOK_EVERY_S: Final = 0.02


class _Stats(msgspec.Struct):
    hang_ups: int


class MockWatch:
    """`await start()`, `sample()` a few times a second, then `await finish()`."""

    def __init__(
        self,
        pid: int,
        url: str,
        key: Secret,
        *,
        last_within_s: float = _LAST_WITHIN_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`key` is what the proxy sends: hang-ups are counted of requests that had it."""
        self._usage = UsageWatch(pid)
        self._url = url
        self._key = key
        self._last_within_s = last_within_s
        self._clock = clock
        self._began_s = 0.0
        self._hang_ups: int | None = None

    async def start(self) -> None:
        """Again for another run."""
        self._hang_ups = await self._ask()
        self._usage.start()
        self._began_s = self._clock()

    def sample(self) -> None:
        self._usage.sample()

    async def finish(self, hang_ups: int) -> MockFigures:
        """Waits a little for the last ones, until it has seen so many."""
        length_s = self._clock() - self._began_s
        cpu_s = self._usage.finish(0).cpu_s
        return MockFigures(
            cpu_share=cpu_s / length_s if length_s >= _SHORTEST_S else None,
            hang_ups=await self._seen(hang_ups),
        )

    async def _seen(self, wanted: int) -> int | None:
        until_s = self._clock() + self._last_within_s
        while True:
            now = await self._ask()
            if now is None or self._hang_ups is None:
                return None
            if now - self._hang_ups >= wanted or self._clock() >= until_s:
                return now - self._hang_ups
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _ask(self) -> int | None:
        headers = {"authorization": f"Bearer {self._key.reveal()}"}
        try:
            async with (
                asyncio.timeout(self._last_within_s),
                httpx.AsyncClient(trust_env=False) as http,
            ):
                answer = await http.get(f"{self._url}{STATS_PATH}", headers=headers)
            return msgspec.json.decode(answer.content, type=_Stats).hang_ups
        except (TimeoutError, httpx.HTTPError, msgspec.MsgspecError):
            return None
