"""Which of a host's addresses answers first: Happy Eyeballs, RFC 8305."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Sequence
from itertools import chain, zip_longest
from typing import Any, Protocol, TypeVar


class Abortable(Protocol):
    def abort(self) -> None: ...


T = TypeVar("T", bound=Abortable)


def interleave(addresses: Sequence[str]) -> list[str]:
    """Families in turn, beginning with that of the first address (section 4)."""
    first = [one for one in addresses if (":" in one) == (":" in addresses[0])]
    other = [one for one in addresses if one not in first]
    turns = chain.from_iterable(zip_longest(first, other))
    return [one for one in turns if one is not None]


async def first_connected(
    left: list[str], connect: Callable[[str], Coroutine[Any, Any, T]], *, stagger_s: float
) -> tuple[str, T]:
    """Tries the next address when one failed, or has not answered for `stagger_s`; the first to
    connect wins (section 5). The winner and those that failed are taken out of `left`. Raises the
    last OSError when all failed."""
    if len(left) == 1:
        address = left.pop()
        return address, await connect(address)
    waiting = deque(left)
    running: dict[asyncio.Task[T], str] = {}
    try:
        while True:
            if waiting:
                address = waiting.popleft()
                running[asyncio.create_task(connect(address))] = address
            done, _ = await asyncio.wait(
                running,
                timeout=stagger_s if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                address = running.pop(task)
                left.remove(address)
                try:
                    return address, task.result()
                except OSError:
                    if not running and not waiting:
                        raise
    finally:
        await _abandon(running)


async def _abandon(tasks: Collection[asyncio.Task[T]]) -> None:
    """Losers are cancelled; one that has connected all the same is closed."""
    for task in tasks:
        task.cancel()
        task.add_done_callback(_close)
    if tasks:
        await asyncio.wait(tasks)


def _close(task: asyncio.Task[T]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().abort()
