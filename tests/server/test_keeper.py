from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from llm_proxy.errors import LLMProxyError
from llm_proxy.server.keeper import Backoff, Keeper

pytestmark = pytest.mark.anyio


class FakeChild:
    """Ends when told to; `is_broken` ones fail before they are ready."""

    def __init__(self, pid: int, *, is_broken: bool = False) -> None:
        self.pid = pid
        self.is_broken = is_broken
        self.was_killed = False
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait_until_ready(self) -> None:
        if self.is_broken:
            raise LLMProxyError(f"child {self.pid} is broken")

    async def wait(self) -> int:
        return await asyncio.shield(self._exit)

    def end(self, code: int) -> None:
        if not self._exit.done():
            self._exit.set_result(code)

    def kill(self) -> None:
        self.was_killed = True
        self.end(-9)


class Nursery:
    """Launches children with pids 1, 2, …; those in `broken` fail."""

    def __init__(self, *, broken: frozenset[int] = frozenset()) -> None:
        self.children: list[FakeChild] = []
        self._broken = broken
        self._changed = asyncio.Event()

    async def launch(self) -> FakeChild:
        pid = len(self.children) + 1
        self.children.append(FakeChild(pid, is_broken=pid in self._broken))
        return self.children[-1]

    def changed(self) -> None:
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


def ask_to_end(child: FakeChild) -> None:
    child.end(0)


async def die_and_be_replaced(keeper: Keeper[FakeChild], nursery: Nursery) -> None:
    victim = nursery.children[-1]
    victim.end(1)
    await nursery.until(lambda: keeper.is_ready and keeper.child is not victim)


def test_backoff_doubles_for_children_that_die_young() -> None:
    backoff = Backoff()
    delays = [backoff.next_delay(1.0) for _ in range(8)]
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_backoff_forgets_after_a_stable_child() -> None:
    backoff = Backoff()
    backoff.next_delay(0.0)
    backoff.next_delay(0.0)
    assert backoff.next_delay(60.0) == 0.0
    assert backoff.next_delay(0.0) == 0.1


async def test_dead_child_is_replaced_until_the_keeper_stops() -> None:
    nursery = Nursery()
    keeper = Keeper("child", nursery.launch, on_change=nursery.changed)
    await keeper.start()
    assert keeper.is_ready
    nursery.children[0].end(1)
    await nursery.until(lambda: keeper.is_ready and len(nursery.children) == 2)
    assert keeper.child is nursery.children[1]
    assert await keeper.stop(ask_to_end, timeout_s=5)
    assert keeper.child is None
    assert len(nursery.children) == 2


async def test_first_failure_is_raised_and_leaves_nothing() -> None:
    nursery = Nursery(broken=frozenset({1}))
    keeper = Keeper("child", nursery.launch)
    with pytest.raises(LLMProxyError, match="child 1 is broken"):
        await keeper.start()
    assert nursery.children[0].was_killed
    assert keeper.child is None
    assert await keeper.stop(ask_to_end, timeout_s=5)


async def test_replacement_that_fails_is_tried_again() -> None:
    nursery = Nursery(broken=frozenset({2}))
    keeper = Keeper("child", nursery.launch, on_change=nursery.changed)
    await keeper.start()
    nursery.children[0].end(1)
    await nursery.until(lambda: keeper.is_ready and len(nursery.children) == 3)
    assert nursery.children[1].was_killed
    assert await keeper.stop(ask_to_end, timeout_s=5)


async def test_child_that_ignores_the_request_is_killed() -> None:
    nursery = Nursery()
    keeper = Keeper("child", nursery.launch)
    await keeper.start()
    assert not await keeper.stop(lambda child: None, timeout_s=0.05)
    assert nursery.children[0].was_killed


async def test_stop_interrupts_the_wait_before_a_replacement() -> None:
    nursery = Nursery()
    keeper = Keeper("child", nursery.launch, on_change=nursery.changed)
    await keeper.start()
    for _ in range(3):
        await die_and_be_replaced(keeper, nursery)
    nursery.children[-1].end(1)
    await nursery.until(lambda: not keeper.is_ready)
    async with asyncio.timeout(0.5):
        assert await keeper.stop(ask_to_end, timeout_s=5)
    assert len(nursery.children) == 4


async def test_stop_reaches_a_child_that_is_just_being_launched() -> None:
    nursery = Nursery()
    launching, may_launch = asyncio.Event(), asyncio.Event()

    async def launch() -> FakeChild:
        if nursery.children:
            launching.set()
            await may_launch.wait()
        return await nursery.launch()

    keeper = Keeper("child", launch)
    await keeper.start()
    nursery.children[0].end(1)
    await launching.wait()
    stopping = asyncio.create_task(keeper.stop(ask_to_end, timeout_s=5))
    await asyncio.sleep(0)
    may_launch.set()
    assert await stopping
    assert not nursery.children[1].was_killed
