from __future__ import annotations

import asyncio
import gc
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from llm_proxy.errors import LLMProxyError
from llm_proxy.measurements import Series, Snapshot
from llm_proxy.server.channel import Change, Invalidate, WorkerConfig
from llm_proxy.server.host_authority import HostAuthority
from llm_proxy.server.tally import Tally
from llm_proxy.server.worker_process import WorkerProcess

pytestmark = pytest.mark.anyio

CHANGE = Invalidate(1, [Change("token", "t-1")])
Launch = Callable[[str], Awaitable[WorkerProcess]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the supervisor's loop


@pytest.fixture
def tally() -> Tally:
    return Tally()


@pytest.fixture
async def launch(
    scripted: Callable[[str], list[str]], worker_config: WorkerConfig, tally: Tally
) -> AsyncIterator[Launch]:
    workers: list[WorkerProcess] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        async def launch(behaviour: str) -> WorkerProcess:
            worker = await WorkerProcess.launch(
                scripted(behaviour),
                listeners=[listener],
                config=worker_config,
                ready_timeout_s=30,
                tally=tally,
            )
            workers.append(worker)
            return worker

        yield launch
        for worker in workers:
            worker.kill()
            await worker.wait()


async def test_worker_becomes_ready_acknowledges_and_drains(launch: Launch) -> None:
    worker = await launch("good")
    await worker.wait_until_ready()
    assert await worker.invalidate(CHANGE, timeout_s=30)
    worker.drain(5.0)
    async with asyncio.timeout(30):
        assert await worker.wait() == 0


async def test_worker_is_measured_and_counts_in_the_tally_when_it_is_gone(
    launch: Launch, tally: Tally
) -> None:
    worker = await launch("good")
    await worker.measure(timeout_s=30)
    assert worker.snapshot == Snapshot()  # it isn't ready
    await worker.wait_until_ready()
    for count in (1, 2):
        await worker.measure(timeout_s=30)
        (series,) = worker.snapshot.counters
        assert series == Series("requests", ("openai", "200"), count)
    worker.kill()
    await worker.wait()
    await worker.measure(timeout_s=30)
    assert (await tally.collect()).counters == {("requests", ("openai", "200")): 2}


async def test_worker_that_owes_an_answer_is_waited_for_once(launch: Launch) -> None:
    worker = await launch("deaf")
    await worker.wait_until_ready()
    await worker.measure(timeout_s=0.01)
    async with asyncio.timeout(30):
        await worker.measure(timeout_s=60)
    assert worker.snapshot == Snapshot()


async def test_worker_killed_while_measured_is_not_waited_for(launch: Launch) -> None:
    worker = await launch("deaf")
    await worker.wait_until_ready()
    measuring = asyncio.create_task(worker.measure(timeout_s=60))
    await asyncio.sleep(0)
    worker.kill()
    async with asyncio.timeout(30):
        await measuring


async def test_worker_that_has_exited_obeys(launch: Launch) -> None:
    worker = await launch("good")
    await worker.wait_until_ready()
    worker.kill()
    assert await worker.wait() == -9
    assert await worker.invalidate(CHANGE, timeout_s=30)


async def test_worker_killed_while_asked_obeys(launch: Launch) -> None:
    worker = await launch("deaf")
    await worker.wait_until_ready()
    answer = asyncio.create_task(worker.invalidate(CHANGE, timeout_s=30))
    await asyncio.sleep(0)
    worker.kill()
    assert await answer


async def test_deaf_worker_does_not_obey(launch: Launch) -> None:
    worker = await launch("deaf")
    await worker.wait_until_ready()
    assert not await worker.invalidate(CHANGE, timeout_s=0.05)


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("crash", "a gateway worker exited with code 3 before it was ready; see the log"),
        ("failing", "a gateway worker did not start: the moon is in the wrong house"),
        ("babbling", "a gateway worker was killed by signal 9 before it was ready; see the log"),
    ],
)
async def test_failed_start_says_why(launch: Launch, behaviour: str, reason: str) -> None:
    worker = await launch(behaviour)
    with pytest.raises(LLMProxyError) as caught:
        await worker.wait_until_ready()
    assert str(caught.value) == reason


async def test_silent_worker_is_given_up(
    scripted: Callable[[str], list[str]], worker_config: WorkerConfig
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        worker = await WorkerProcess.launch(
            scripted("silent"), listeners=[listener], config=worker_config, ready_timeout_s=0.1
        )
    with pytest.raises(LLMProxyError, match=r"not ready within 0\.1 s"):
        await worker.wait_until_ready()
    worker.kill()
    assert await worker.wait() == -9


async def test_command_that_does_not_exist_is_an_error(worker_config: WorkerConfig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(FileNotFoundError):
        await WorkerProcess.launch(["/no/such/program"], listeners=[listener], config=worker_config)


async def test_signals_to_a_process_that_is_gone_are_harmless(launch: Launch) -> None:
    worker = await launch("crash")
    await worker.wait()
    worker.kill()
    worker.send_signal(0)
    worker.drain(1.0)


async def test_launch_cancelled_at_any_step_leaves_no_process(
    scripted: Callable[[str], list[str]], worker_config: WorkerConfig
) -> None:
    before = children()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for steps in range(8):
            launching = asyncio.create_task(
                WorkerProcess.launch(scripted("silent"), listeners=[listener], config=worker_config)
            )
            for _ in range(steps):
                await asyncio.sleep(0)
            launching.cancel()
            (result,) = await asyncio.gather(launching, return_exceptions=True)
            if isinstance(result, WorkerProcess):  # it was complete: its owner ends it
                result.kill()
                await result.wait()
    gc.collect()  # a process or transport that nobody owns is a ResourceWarning, so an error
    assert children() <= before


def children() -> set[int]:
    """Ids of this process's children; a test before this one may have left some running."""
    listing = subprocess.Popen(
        ["ps", "-A", "-o", "pid=,ppid="], stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    output, _ = listing.communicate(timeout=10)
    rows = [tuple(map(int, line.split())) for line in output.splitlines()]
    return {pid for pid, parent in rows if parent == os.getpid() and pid != listing.pid}


@pytest.mark.parametrize(("behaviour", "shared"), [("good", 2), ("deaf", 0)])
async def test_counts_of_limits_are_taken_over_and_end_with_the_worker(
    scripted: Callable[[str], list[str]],
    worker_config: WorkerConfig,
    behaviour: str,
    shared: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    authority = HostAuthority()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        worker = await WorkerProcess.launch(
            scripted(behaviour),
            listeners=[listener],
            config=worker_config,
            ready_timeout_s=30,
            authority=authority,
        )
        await worker.wait_until_ready()
        await worker.share_limits(2, timeout_s=30 if shared else 0.05)
        assert authority.slots == shared
        assert ("keeps its counts of limits to itself" in caplog.text) == (not shared)
        worker.kill()
        await worker.wait()
    assert authority.slots == 0
    await worker.share_limits(2, timeout_s=30)  # it has ended
