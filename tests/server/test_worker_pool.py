from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from llm_proxy.errors import LLMProxyError
from llm_proxy.server.channel import Change, WorkerConfig
from llm_proxy.server.host_authority import HostAuthority
from llm_proxy.server.limit_authority import Authority
from llm_proxy.server.settlement import Holder
from llm_proxy.server.sockets import bind_public
from llm_proxy.server.worker_pool import WorkerPool
from llm_proxy.settings import Address

pytestmark = pytest.mark.anyio

CHANGES = [Change("token", "t-1"), Change("project", "p-1")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the supervisor's loop


class Harness:
    def __init__(self, scripted: Callable[[str], list[str]], config: WorkerConfig) -> None:
        self._scripted = scripted
        self._config = config
        self._changed = asyncio.Event()
        self.listeners: list[socket.socket] = []
        self.pools: list[WorkerPool] = []

    async def pool(
        self,
        behaviour: str,
        *,
        slots: int = 1,
        acknowledge_timeout_s: float | None = None,
        authority: Authority | None = None,
    ) -> WorkerPool:
        if acknowledge_timeout_s is None:
            acknowledge_timeout_s = 0.1 if behaviour in ("deaf", "stubborn") else 30
        self.listeners = await bind_public(Address("127.0.0.1", 0), slots=slots)
        pool = WorkerPool(
            self._scripted(behaviour),
            [self._config] * slots,
            [[listener] for listener in self.listeners],
            on_change=self._changed.set,
            ready_timeout_s=30,
            acknowledge_timeout_s=acknowledge_timeout_s,
            drain_grace_s=0.05,
            authority=authority,
        )
        self.pools.append(pool)
        return pool

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def close(self) -> None:
        for pool in self.pools:
            await pool.kill()
        for sock in self.listeners:
            sock.close()


@pytest.fixture
async def harness(
    scripted: Callable[[str], list[str]], worker_config: WorkerConfig
) -> AsyncIterator[Harness]:
    harness = Harness(scripted, worker_config)
    yield harness
    await harness.close()


async def ask(listener: socket.socket) -> bytes:
    """The pid of the worker that answered."""
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    return answer.rpartition(b"\r\n")[2]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_each_listener_has_a_worker_and_none_is_left_after_draining(
    harness: Harness,
) -> None:
    pool = await harness.pool("good", slots=2)
    await pool.start()
    pool.serve()
    pids = {worker.pid for worker in pool.ready}
    assert len(pids) == pool.expected == 2
    assert int(await ask(harness.listeners[0])) in pids
    await pool.drain(5)
    assert pool.ready == []
    assert not any(is_alive(pid) for pid in pids)


async def test_killed_worker_is_replaced_while_others_serve(harness: Harness) -> None:
    pool = await harness.pool("good", slots=2)
    await pool.start()
    pool.serve()
    victim, other = pool.ready
    os.kill(victim.pid, signal.SIGKILL)
    await victim.wait()
    # Connections of the dead worker's socket wait in its backlog: none fails.
    answers = await asyncio.gather(*(ask(harness.listeners[0]) for _ in range(20)))
    await harness.until(lambda: len(pool.ready) == 2)
    pids = {worker.pid for worker in pool.ready}
    assert victim.pid not in pids
    assert other.pid in pids
    assert {int(answer) for answer in answers} <= pids


async def test_worker_that_cannot_start_fails_the_pool_and_leaves_nothing(
    harness: Harness,
) -> None:
    pool = await harness.pool("failing", slots=2)
    with pytest.raises(LLMProxyError, match="the moon is in the wrong house"):
        await pool.start()
    assert pool.ready == []


async def test_published_changes_are_acknowledged_by_the_same_workers(harness: Harness) -> None:
    pool = await harness.pool("good", slots=2)
    await pool.start()
    before = {worker.pid for worker in pool.ready}
    await asyncio.gather(*(pool.publish(CHANGES) for _ in range(10)))
    await pool.publish(CHANGES * 500)
    await pool.publish([])
    assert {worker.pid for worker in pool.ready} == before


async def test_worker_that_does_not_acknowledge_is_gone_when_publish_returns(
    harness: Harness,
) -> None:
    pool = await harness.pool("deaf")
    await pool.start()
    (deaf,) = pool.ready
    await pool.publish(CHANGES)
    assert not is_alive(deaf.pid)
    await harness.until(lambda: len(pool.ready) == 1 and pool.ready[0].pid != deaf.pid)


async def test_stopped_worker_is_gone_when_publish_returns(harness: Harness) -> None:
    pool = await harness.pool("stubborn")
    await pool.start()
    (stopped,) = pool.ready
    os.kill(stopped.pid, signal.SIGSTOP)
    await pool.publish(CHANGES)
    assert not is_alive(stopped.pid)


async def test_worker_that_hangs_is_replaced_after_its_second_silence(harness: Harness) -> None:
    pool = await harness.pool("stubborn", slots=2, acknowledge_timeout_s=1)
    await pool.start()
    hanging, well = pool.ready
    os.kill(hanging.pid, signal.SIGSTOP)
    await pool.check()
    assert hanging in pool.ready  # it may have been a pause of the machine
    await pool.check()
    await harness.until(lambda: hanging not in pool.ready and len(pool.ready) == 2)
    assert not is_alive(hanging.pid)
    assert well in pool.ready


async def test_worker_that_was_silent_only_once_stays(harness: Harness) -> None:
    pool = await harness.pool("stubborn", acknowledge_timeout_s=1)
    await pool.start()
    (worker,) = pool.ready
    for _ in range(2):
        os.kill(worker.pid, signal.SIGSTOP)
        await pool.check()
        os.kill(worker.pid, signal.SIGCONT)
        await pool.check()
    assert pool.ready == [worker]


async def test_nothing_is_accepted_before_the_pool_may_serve(harness: Harness) -> None:
    pool = await harness.pool("good")
    await pool.start()
    asking = asyncio.create_task(ask(harness.listeners[0]))
    await pool.publish(CHANGES)  # the worker is at work, but doesn't accept
    assert not asking.done()
    pool.serve()
    assert (await asking).split()[1:] == [b"token:t-1", b"project:p-1"]


async def test_worker_that_hangs_is_killed_long_before_the_end_of_its_drain(
    harness: Harness,
) -> None:
    pool = await harness.pool("deaf", slots=2)
    await pool.start()
    pids = [worker.pid for worker in pool.ready]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    async with asyncio.timeout(10):
        await pool.drain(600)
    assert not any(is_alive(pid) for pid in pids)


async def test_drain_can_be_cut_short_while_it_runs(harness: Harness) -> None:
    pool = await harness.pool("busy")
    await pool.start()
    draining = asyncio.create_task(pool.drain(600))
    await asyncio.sleep(0)
    assert pool.ready
    pool.hurry(0)
    async with asyncio.timeout(10):
        await draining
    assert not pool.ready


async def test_worker_that_does_not_drain_is_killed(harness: Harness) -> None:
    pool = await harness.pool("stubborn")
    await pool.start()
    (stubborn,) = pool.ready
    async with asyncio.timeout(30):
        await pool.drain(0.05)
    assert not is_alive(stubborn.pid)


async def test_reopening_logs_signals_ready_workers(harness: Harness) -> None:
    pool = await harness.pool("good")
    await pool.start()
    (worker,) = pool.ready
    pool.reopen_logs()  # the scripted worker has no handler, so the signal shows by its death
    assert await worker.wait() == -signal.SIGUSR1


async def test_counts_of_limits_are_shared_once(harness: Harness) -> None:
    authority = HostAuthority()
    pool = await harness.pool("good", authority=authority)
    await pool.start()
    await pool.share_limits()
    await pool.share_limits()
    assert authority.slots == 2
    await pool.kill()
    assert authority.slots == 0


class Book:
    """Who began and who ended, in order."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def begin(self) -> Holder:
        name = f"w-{len(self.entries)}"
        self.entries.append(f"{name} begins")
        return Holder(host="h", id=name, ledger=Path("/ledgers", name))

    def ended(self, holder: Holder) -> None:
        self.entries.append(f"{holder.id} ended")


async def test_every_process_has_a_name_of_its_own_and_its_end_is_told(
    scripted: Callable[[str], list[str]], worker_config: WorkerConfig
) -> None:
    book = Book()
    (listener,) = await bind_public(Address("127.0.0.1", 0), slots=1)
    with listener:
        pool = WorkerPool(scripted("good"), [worker_config], [[listener]], holders=book)
        await pool.start()
        (first,) = pool.ready
        os.kill(first.pid, signal.SIGKILL)
        async with asyncio.timeout(30):
            while not pool.ready or pool.ready == [first]:
                await asyncio.sleep(0.01)
        assert book.entries == ["w-0 begins", "w-0 ended", "w-2 begins"]
        await pool.kill()
    assert book.entries[3:] == ["w-2 ended"]


async def test_a_worker_that_can_not_be_started_has_ended(worker_config: WorkerConfig) -> None:
    book = Book()
    (listener,) = await bind_public(Address("127.0.0.1", 0), slots=1)
    with listener:
        pool = WorkerPool(["/no/such/program"], [worker_config], [[listener]], holders=book)
        with pytest.raises(FileNotFoundError):
            await pool.start()
    assert book.entries == ["w-0 begins", "w-0 ended"]
