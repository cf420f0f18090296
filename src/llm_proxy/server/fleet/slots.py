"""Slots of concurrency limits: who on this host holds how many, as Redis is told.

Redis hears how many slots of a key this host holds, never how many more or less: so a message that
was lost, came twice or came late does no lasting harm. What is held is told again every few
seconds; a host that falls silent loses its slots when what it said last is too old.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from itertools import count
from typing import Final

from llm_proxy.server.fleet.connections import RedisUnavailable
from llm_proxy.server.fleet.link import Link
from llm_proxy.server.fleet.scripts import TAKE_SLOTS

KEPT_S: Final = 15.0  # the slots of a host that is gone are free after so long
TELL_EVERY_S: Final = 5.0  # two messages may be lost before
RETRY_S: Final = 0.5
_AT_ONCE: Final = 500  # messages


class _Key:
    __slots__ = ("held", "lock", "told", "users")

    def __init__(self) -> None:
        self.held: dict[str, int] = {}  # by holder
        self.told: int | None = 0  # what Redis knows; None: not for sure
        self.lock = asyncio.Lock()  # one message at a time, so that each tells what is so
        self.users = 0  # of the lock

    @property
    def total(self) -> int:
        return sum(self.held.values())


class FleetSlots:
    def __init__(
        self,
        link: Link,
        *,
        host: str,
        lasts_without_redis: bool,
        kept_s: float = KEPT_S,
        tell_every_s: float = TELL_EVERY_S,
    ) -> None:
        """`host` is this server's until it ends, and no other's. `lasts_without_redis`: while
        there is no answer, the limit is kept for this host alone."""
        self._link = link
        self._host = host
        self._lasts_without_redis = lasts_without_redis
        self._kept_ms = round(kept_s * 1000)
        self._tell_every_s = tell_every_s
        self._keys: dict[str, _Key] = {}
        self._numbers = count(1)  # of messages
        self._to_tell: dict[str, None] = {}
        self._has_to_tell = asyncio.Event()
        self._taking: Counter[str] = Counter()  # by holder
        self._gone: set[str] = set()  # holders that ended while they were taking

    @property
    def held(self) -> int:
        """By this host, of all keys."""
        return sum(key.total for key in self._keys.values())

    @property
    def known_keys(self) -> int:
        return len(self._keys)

    async def take(self, name: str, most: int, wanted: int, holder: str) -> int:
        """How many of them were free. Raises RedisUnavailable."""
        key = self._keys.setdefault(name, _Key())
        key.users += 1
        self._taking[holder] += 1
        try:
            async with key.lock:
                granted = await self._take(name, key, most, wanted)
                if holder in self._gone:
                    return 0
                if granted:
                    key.held[holder] = key.held.get(holder, 0) + granted
                return granted
        finally:
            key.users -= 1
            self._end_taking(holder)
            self._tell_soon(name, key)

    async def _take(self, name: str, key: _Key, most: int, wanted: int) -> int:
        wanted = min(wanted, most - key.total)
        if wanted <= 0:
            return 0
        try:
            return await self._ask(name, key, wanted, most)
        except RedisUnavailable:
            if not self._lasts_without_redis:
                raise
            return min(wanted, most - key.total)

    async def _ask(self, name: str, key: _Key, wanted: int, most: int) -> int:
        """Under the key's lock."""
        held, told, key.told = key.total, key.told, None
        message = self._host, held, wanted, most, self._kept_ms, next(self._numbers)
        try:
            granted = await self._link.call(TAKE_SLOTS, f"slots:{name}", *message)
        except RedisUnavailable as exc:
            if not exc.was_sent:
                key.told = told
            raise
        if not isinstance(granted, int) or granted < 0:
            raise RedisUnavailable("a later message was there before this one")
        key.told = held + granted
        return granted

    def _end_taking(self, holder: str) -> None:
        self._taking[holder] -= 1
        if not self._taking[holder]:
            del self._taking[holder]
            self._gone.discard(holder)

    def give(self, name: str, number: int, holder: str) -> None:
        key = self._keys.get(name)
        if key is None:
            return
        left = key.held.get(holder, 0) - number
        if left > 0:
            key.held[holder] = left
        else:
            key.held.pop(holder, None)
        self._tell_soon(name, key)

    def forget(self, holder: str) -> None:
        """It has ended."""
        if self._taking[holder]:
            self._gone.add(holder)
        for name, key in list(self._keys.items()):
            if key.held.pop(holder, None):
                self._tell_soon(name, key)

    def tell_again(self) -> None:
        """Redis may have lost what it was told."""
        for name, key in self._keys.items():
            key.told = None
            self._tell_soon(name, key)

    def _tell_soon(self, name: str, key: _Key) -> None:
        if key.told == key.total:
            self._drop_if_unused(name, key)
        elif not key.users:  # else the last of them does this
            self._to_tell[name] = None
            self._has_to_tell.set()

    def _drop_if_unused(self, name: str, key: _Key) -> None:
        if not key.users and not key.total:
            self._keys.pop(name, None)

    async def run(self) -> None:
        """Tells Redis what has changed, and everything every few seconds, until cancelled."""
        loop = asyncio.get_running_loop()
        due_at = loop.time() + self._tell_every_s
        while True:
            try:
                async with asyncio.timeout_at(due_at):
                    await self._has_to_tell.wait()
            except TimeoutError:
                due_at = loop.time() + self._tell_every_s
                self._to_tell |= dict.fromkeys(self._keys)
            if not await self.tell():
                await asyncio.sleep(RETRY_S)

    async def tell(self) -> bool:
        """Everything that waits for it; whether Redis answered."""
        self._has_to_tell.clear()
        names, self._to_tell = list(self._to_tell), {}
        for start in range(0, len(names), _AT_ONCE):
            some = names[start : start + _AT_ONCE]
            if not all(await asyncio.gather(*map(self._tell, some))):
                self._to_tell |= dict.fromkeys(names[start:])
                self._has_to_tell.set()
                return False
        return True

    async def _tell(self, name: str) -> bool:
        key = self._keys.get(name)
        if key is None:
            return True
        key.users += 1
        try:
            async with key.lock:
                await self._ask(name, key, 0, 0)
        except RedisUnavailable:
            return False
        finally:
            key.users -= 1
        self._tell_soon(name, key)
        return True

    async def give_all(self, within_s: float) -> None:
        """At the end: nothing is held any more, and Redis knows if it can be told."""
        for holder in self._holders():
            self.forget(holder)
        try:
            async with asyncio.timeout(within_s):
                await self.tell()
        except TimeoutError:
            pass  # then it finds out by itself

    def _holders(self) -> Iterable[str]:
        return {holder for key in self._keys.values() for holder in key.held}
