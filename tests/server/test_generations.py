from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from llm_proxy.errors import LLMProxyError
from llm_proxy.server.channel import Change, WorkerConfig
from llm_proxy.server.generations import MAX_RETIRING, Generation, Generations
from llm_proxy.server.host_authority import HostAuthority
from llm_proxy.server.public_sockets import PublicSockets
from llm_proxy.server.sockets import bind_public
from llm_proxy.server.worker_pool import WorkerPool
from llm_proxy.settings import Address
from tests.server.scripted_worker import BEHAVIOURS

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the supervisor's loop


class Harness:
    """Generations of scripted workers that share one public address."""

    def __init__(self, command: list[str], config: WorkerConfig, sockets: PublicSockets) -> None:
        self._command = command
        self._config = config
        self._sockets = sockets
        self._changed = asyncio.Event()
        self.address = sockets.spread(1)[0][0].getsockname()
        self.gone: list[Generation] = []
        self.generations = Generations(on_change=self._changed.set, on_gone=self._note)

    async def _note(self, generation: Generation) -> None:
        self.gone.append(generation)
        self._changed.set()

    def prepare(self, *behaviours: str, ready_timeout_s: float = 30) -> Generation:
        """One worker for each."""
        configs = [
            msgspec.structs.replace(self._config, max_request_size=BEHAVIOURS.index(behaviour))
            for behaviour in behaviours
        ]
        pool = WorkerPool(
            self._command,
            configs,
            self._sockets.spread(len(configs)),
            on_change=self._changed.set,
            ready_timeout_s=ready_timeout_s,
            acknowledge_timeout_s=0.2 if "stubborn" in behaviours else 30,
            drain_grace_s=0.05,
            authority=HostAuthority(),
        )
        return Generation(pool, None)

    async def succeed(self, *behaviours: str, ready_timeout_s: float = 30) -> list[int]:
        fresh = self.prepare(*behaviours, ready_timeout_s=ready_timeout_s)
        await self.generations.succeed(fresh)
        return [worker.pid for worker in fresh.pool.ready]

    async def ask(self) -> list[str]:
        """The pid of the worker that answered, and what it was told of."""
        async with asyncio.timeout(30):
            reader, writer = await asyncio.open_connection(*self.address)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
        return answer.rpartition(b"\r\n")[2].decode().split()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture
async def harness(
    scripted: Callable[[str], list[str]], worker_config: WorkerConfig
) -> AsyncIterator[Harness]:
    sockets = PublicSockets(await bind_public(Address("127.0.0.1", 0), slots=1))
    harness = Harness(scripted("picky"), worker_config, sockets)
    yield harness
    await harness.generations.kill()
    sockets.close()


async def test_successors_serve_and_those_before_them_end(harness: Harness) -> None:
    before = await harness.succeed("good")
    assert await harness.ask() == [str(before[0])]
    after = await harness.succeed("good", "good", "good")
    await harness.until(lambda: len(harness.gone) == 1)
    answers = [int((await harness.ask())[0]) for _ in range(20)]
    assert set(answers) <= set(after)
    assert harness.generations.draining == []


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("failing", "the moon is in the wrong house"),
        ("crash", "exited with code 3 before it was ready"),
        ("silent", "not ready within 0.3 s"),
    ],
)
async def test_successors_of_which_one_fails_never_get_a_connection(
    harness: Harness, behaviour: str, reason: str
) -> None:
    (before,) = await harness.succeed("good")
    limit_s = 0.3 if behaviour == "silent" else 30
    succeeding = asyncio.create_task(harness.succeed("good", behaviour, ready_timeout_s=limit_s))
    while not succeeding.done():
        assert await harness.ask() == [str(before)]
    with pytest.raises(LLMProxyError, match=reason):
        await succeeding
    assert await harness.ask() == [str(before)]
    assert len(harness.generations.all) == 1
    assert harness.gone == []


async def test_interrupted_succession_leaves_none_of_its_workers(harness: Harness) -> None:
    (before,) = await harness.succeed("good")
    fresh = harness.prepare("good", "silent")
    succeeding = asyncio.create_task(harness.generations.succeed(fresh))
    await harness.until(lambda: len(fresh.pool.ready) == 1)
    succeeding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await succeeding
    assert fresh.pool.ready == []
    assert await harness.ask() == [str(before)]


async def test_succession_interrupted_while_counts_are_shared_leaves_none_either(
    harness: Harness,
) -> None:
    await harness.succeed("deaf")  # it never says what it had counted
    fresh = harness.prepare("good")
    succeeding = asyncio.create_task(harness.generations.succeed(fresh))
    await harness.until(lambda: len(fresh.pool.ready) == 1)
    for _ in range(20):
        await asyncio.sleep(0)
    assert fresh in harness.generations.all  # it hears of changes
    succeeding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await succeeding
    assert fresh.pool.ready == []


async def test_changes_reach_workers_that_drain(harness: Harness) -> None:
    (old,) = await harness.succeed("busy")  # it goes on answering while it drains
    (new,) = await harness.succeed("good")
    assert [worker.pid for worker in harness.generations.draining] == [old]
    await harness.generations.publish([Change("token", "t-1")])
    told: set[int] = set()
    while len(told) < 2:
        pid, *changes = await harness.ask()
        assert changes == ["token:t-1"]
        told.add(int(pid))
    assert told == {old, new}


async def test_workers_that_start_while_the_store_is_lost_are_told(harness: Harness) -> None:
    await harness.succeed("good")
    harness.generations.tell_store_state(False)
    (fresh,) = await harness.succeed("good")
    await harness.until(lambda: len(harness.gone) == 1)
    assert await harness.ask() == [str(fresh), "store:lost"]
    (victim,) = harness.generations.all[0].pool.ready
    victim.kill()
    await victim.wait()
    assert (await harness.ask())[1:] == ["store:lost"]


async def test_too_many_generations_end_the_oldest(harness: Harness) -> None:
    pids = [(await harness.succeed("busy"))[0] for _ in range(MAX_RETIRING + 2)]
    await harness.until(lambda: len(harness.gone) == 1)
    assert [worker.pid for worker in harness.generations.draining] == pids[1:-1]


async def test_worker_that_hangs_ends_soon_after_its_succession(harness: Harness) -> None:
    (hung,) = await harness.succeed("stubborn")
    os.kill(hung, signal.SIGSTOP)
    await harness.succeed("good")
    await harness.until(lambda: len(harness.gone) == 1)
    with pytest.raises(ProcessLookupError):
        os.kill(hung, 0)


async def test_dead_worker_of_the_present_generation_is_replaced_and_serves(
    harness: Harness,
) -> None:
    await harness.succeed("busy")
    (pid,) = await harness.succeed("good")
    harness.generations.all[0].pool.hurry(0)
    await harness.until(lambda: len(harness.gone) == 1)
    (victim,) = harness.generations.all[0].pool.ready
    os.kill(pid, signal.SIGKILL)
    await victim.wait()
    (answered,) = await harness.ask()  # the connection waited in the socket
    assert int(answered) != pid


async def test_drain_and_cut_end_every_generation(harness: Harness) -> None:
    for _ in range(3):
        await harness.succeed("busy")
    draining = asyncio.create_task(harness.generations.drain(600))
    await asyncio.sleep(0)
    assert not draining.done()
    await harness.generations.cut()
    await draining
    assert all(generation.pool.ready == [] for generation in harness.generations.all)
