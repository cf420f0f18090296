"""The numbers of all processes of a server, as its control plane tells them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import msgspec
import pytest

from llm_proxy.errors import ConfigError
from llm_proxy.events.record import FRAME_HEAD
from llm_proxy.server.foundation import lay_foundation
from llm_proxy.server.processes import Processes
from llm_proxy.server.state import read_state
from llm_proxy.settings import Settings

pytestmark = pytest.mark.anyio

Begin = Callable[[Settings], Awaitable[Processes]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the supervisor's loop


@pytest.fixture
async def begin(scripted: Callable[[str], list[str]]) -> AsyncIterator[Begin]:
    """Its workers count how often they were asked."""
    async with AsyncExitStack() as stack:

        async def begin(settings: Settings) -> Processes:
            foundation = await lay_foundation(settings, stack)
            processes = Processes(foundation, flags={}, worker_command=scripted("good"))
            await processes.start(stack)
            return processes

        yield begin


async def scrape(processes: Processes, path: str = "/metrics") -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(f"http://{processes.manage_address}{path}")


async def requests(processes: Processes) -> float:
    text = (await scrape(processes)).text
    (line,) = (line for line in text.splitlines() if line.startswith("llm_proxy_requests_total{"))
    return float(line.rpartition(" ")[2])


def pids(settings: Settings) -> list[int]:
    state = read_state(settings.home.state_file)
    assert state is not None
    return [worker.pid for worker in state.workers]


async def test_workers_that_were_replaced_are_still_counted(
    settings: Settings, begin: Begin
) -> None:
    processes = await begin(msgspec.structs.replace(settings, workers=2))
    assert await requests(processes) == 2
    await asyncio.sleep(0.11)  # sooner they aren't asked again
    assert await requests(processes) == 4
    killed, _ = pids(settings)
    os.kill(killed, signal.SIGKILL)
    async with asyncio.timeout(30):
        while len(now := pids(settings)) < 2 or killed in now:
            await asyncio.sleep(0.01)
    assert await requests(processes) >= 4


async def test_the_server_tells_of_itself(settings: Settings, begin: Begin) -> None:
    text = (await scrape(await begin(settings))).text
    assert "llm_proxy_workers 1.0\n" in text
    assert "llm_proxy_uptime_seconds " in text
    assert 'llm_proxy_process_cpu_seconds_total{process="supervisor"}' in text


async def test_records_that_the_writer_loses_are_counted(
    settings: Settings, tmp_path: Path, begin: Begin
) -> None:
    processes = await begin(msgspec.structs.replace(settings, file_event_log=tmp_path / "events"))
    assert "llm_proxy_records_lost_total 0.0\n" in (await scrape(processes)).text
    state = read_state(settings.home.state_file)
    assert state is not None
    assert state.runtime_folder is not None
    _, worker = await asyncio.open_unix_connection(Path(state.runtime_folder) / "events.sock")
    frame = msgspec.msgpack.encode([["no record"]])
    worker.write(FRAME_HEAD.pack(len(frame)) + frame)
    async with asyncio.timeout(30):
        while "llm_proxy_records_lost_total 1.0\n" not in (await scrape(processes)).text:
            await asyncio.sleep(0.01)
    worker.close()
    await worker.wait_closed()


async def test_metrics_can_be_switched_off(settings: Settings, begin: Begin) -> None:
    processes = await begin(msgspec.structs.replace(settings, enable_metrics=False))
    assert (await scrape(processes)).status_code == 404
    assert (await scrape(processes, "/health")).json()["status"] == "ok"


async def test_metrics_cannot_lie_under_an_api(settings: Settings, begin: Begin) -> None:
    with pytest.raises(ConfigError, match="METRICS_PATH /anthropic/x lies under the paths"):
        await begin(msgspec.structs.replace(settings, metrics_path="/anthropic/x"))
