"""The way to Redis: calls of one loop turn travel together, and none waits for long.

After some failures in a row Redis is left alone: calls fail at once, and a probe asks every second
whether it can be used again. The probe writes, so that a replica or a full Redis doesn't pass.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, Protocol
from uuid import uuid4

from llm_proxy.errors import ConfigError, Unreachable
from llm_proxy.redis_address import RedisAddress
from llm_proxy.server.fleet.connections import RedisConnections, RedisUnavailable, ScriptCall
from llm_proxy.server.fleet.scripts import TAKE_SLOTS, Script

logger = logging.getLogger(__name__)

LANES: Final = 4  # each a connection: with one, a slow answer would hold up all that comes after it
FAILURES: Final = 3  # in a row, then Redis is left alone
PROBE_EVERY_S: Final = 1.0  # while it is, and after a failure
_IDLE_TICKS: Final = 5  # of these: so often the probe looks at a Redis that seems well
_MOST_AT_ONCE: Final = 100  # calls in one message: packing them holds up the loop for 2 ms
_MOST_WAITING: Final = 10_000
_START_TIMEOUT_S: Final = 5.0  # names may have to be resolved, and no request waits yet
_PROBE_KEPT_MS: Final = 1000


class Link(Protocol):
    async def call(self, script: Script, key: str, *arguments: str | int | float) -> Any:
        """Raises RedisUnavailable."""


@dataclass(slots=True)
class LinkCounts:
    answered: int = 0
    failed: int = 0
    skipped: int = 0  # not even tried


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    call: ScriptCall
    answer: asyncio.Future[Any]
    asked_at: float  # on the loop's clock


class RedisLink:
    def __init__(
        self,
        address: RedisAddress,
        *,
        timeout_s: float,
        probe_every_s: float = PROBE_EVERY_S,
        on_loss: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_loss` is called when Redis may not know any more what it was told."""
        self._address = address
        self._timeout_s = timeout_s
        self._probe_every_s = probe_every_s
        self._on_loss = on_loss
        self._connections = RedisConnections(
            address, most=LANES + 1, timeout_s=timeout_s, on_blank=on_loss
        )
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue(_MOST_WAITING)
        self._failures = 0  # in a row
        self._is_left_alone = False
        self._tasks: list[asyncio.Task[None]] = []
        self.counts = LinkCounts()

    @property
    def is_up(self) -> bool:
        return not self._is_left_alone

    async def start(self) -> None:
        """Raises ConfigError when Redis refuses these settings. Raises Unreachable when it can't
        be used for now; from then on it is asked whether it can, all the same."""
        await self._connections.open()
        try:
            await self._connections.run([_probe()], timeout_s=_START_TIMEOUT_S)
        except RedisUnavailable as exc:
            if exc.is_refusal:
                raise ConfigError(
                    f"Redis at {self._address} refuses these settings ({exc}); "
                    "check REDIS_URL, REDIS_DB, REDIS_PASSWORD and REDIS_CA_FILE"
                ) from exc
            self._is_left_alone = True
            raise Unreachable(f"Redis at {self._address} can't be used ({exc})") from exc
        finally:
            self._start_tasks()

    def _start_tasks(self) -> None:
        create = asyncio.get_running_loop().create_task
        self._tasks = [create(self._serve(), name="calls to Redis") for _ in range(LANES)]
        self._tasks.append(create(self._watch(), name="probe of Redis"))

    async def call(self, script: Script, key: str, *arguments: str | int | float) -> Any:
        """Its answer, after twice the time limit at most. Raises RedisUnavailable."""
        if self._is_left_alone or self._waiting.full():
            self.counts.skipped += 1
            raise RedisUnavailable("not asked", was_sent=False)
        loop = asyncio.get_running_loop()
        call = ScriptCall(script, key, arguments)
        waiting = _Waiting(call, loop.create_future(), loop.time())
        self._waiting.put_nowait(waiting)
        return await waiting.answer

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._is_left_alone = True
        _fail(self._take_waiting(), RedisUnavailable("closed"))
        await self._connections.close()

    async def _serve(self) -> None:
        """One lane. Goes on until it is cancelled."""
        while True:
            first = await self._waiting.get()
            batch = [first, *self._take_waiting(_MOST_AT_ONCE - 1)]
            batch = self._still_in_time(batch)
            if batch:
                await self._ask(batch)

    def _take_waiting(self, most: int = _MOST_WAITING) -> list[_Waiting]:
        return [self._waiting.get_nowait() for _ in range(min(most, self._waiting.qsize()))]

    def _still_in_time(self, batch: list[_Waiting]) -> list[_Waiting]:
        oldest = asyncio.get_running_loop().time() - self._timeout_s
        late = [one for one in batch if one.asked_at < oldest or not self.is_up]
        self.counts.skipped += len(late)
        _fail(late, RedisUnavailable("not asked in time", was_sent=False))
        return [one for one in batch if not one.answer.done()]

    async def _ask(self, batch: list[_Waiting]) -> None:
        try:
            answers = await self._run([one.call for one in batch])
        except RedisUnavailable as exc:
            self.counts.failed += len(batch)
            _fail(batch, exc)
            self._note_failure(exc)
        except asyncio.CancelledError:
            _fail(batch, RedisUnavailable("closed"))
            raise
        else:
            self._failures = 0  # though it takes a probe, which writes, to be up again
            for one, answer in zip(batch, answers, strict=True):
                self._give(one, answer)

    async def _run(self, calls: list[ScriptCall]) -> list[Any]:
        try:
            return await self._connections.run(calls)
        except RedisUnavailable:
            raise
        except Exception as exc:  # whatever it is, the lanes go on
            logger.exception("Redis can't be asked")
            raise RedisUnavailable(f"unexpected {type(exc).__name__}") from exc

    def _give(self, one: _Waiting, answer: Any) -> None:
        if isinstance(answer, RedisUnavailable):
            self.counts.failed += 1
            _fail([one], answer)
            return
        self.counts.answered += 1
        if not one.answer.done():
            one.answer.set_result(answer)

    def _note_failure(self, error: RedisUnavailable) -> None:
        self._failures += 1
        self._on_loss()
        if self._failures >= FAILURES and self.is_up:
            logger.error("Redis at %s can't be used (%s): leaving it alone", self._address, error)
            self._is_left_alone = True

    async def _watch(self) -> None:
        """Probes where that says something new. Goes on until it is cancelled."""
        for tick in count(1):
            await asyncio.sleep(self._probe_every_s)
            if self.is_up and not self._failures and tick % _IDLE_TICKS:
                continue
            try:
                await self._run([_probe()])
            except RedisUnavailable as exc:
                self._note_failure(exc)
            else:
                self._note_success()

    def _note_success(self) -> None:
        self._failures = 0
        if not self.is_up:
            logger.info("Redis at %s can be used again", self._address)
            self._is_left_alone = False
            self._on_loss()


def _probe() -> ScriptCall:
    """Always a new one, so that it is never passed over as known."""
    return ScriptCall(TAKE_SLOTS, "probe", (uuid4().hex, 0, 0, 0, _PROBE_KEPT_MS, 1))


def _fail(calls: list[_Waiting], error: RedisUnavailable) -> None:
    for one in calls:
        if not one.answer.done():  # who asked may have gone
            # Each its own: what is raised in many places collects all their tracebacks.
            own = RedisUnavailable(str(error), was_sent=error.was_sent)
            one.answer.set_exception(own)
