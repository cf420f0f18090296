from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from llm_proxy.errors import LLMProxyError
from llm_proxy.logs import configure_logging
from llm_proxy.server.supervisor import Started, Supervisor
from llm_proxy.settings import Settings

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the supervisor's loop


class Running:
    """A supervisor in this process, with scripted workers."""

    def __init__(self, settings: Settings, command: list[str]) -> None:
        self.settings = settings
        self._command = command
        self._started: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[int] | None = None

    def start(self, *, is_daemon: bool = False, drain_timeout_s: float = 30.0) -> asyncio.Task[int]:
        supervisor = Supervisor(
            self.settings,
            flags={"workers": "1"},
            announce=self._started.set_result,
            is_daemon=is_daemon,
            worker_command=self._command,
            drain_timeout_s=drain_timeout_s,
        )
        self.task = asyncio.create_task(supervisor.run())
        return self.task

    async def started(self) -> Started:
        assert self.task is not None
        async with asyncio.timeout(30):
            both: list[asyncio.Future[Any]] = [self.task, self._started]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        return self._started.result()

    async def code(self) -> int:
        assert self.task is not None
        async with asyncio.timeout(30):
            return await self.task

    def leaves_nothing(self) -> bool:
        home = self.settings.home
        remains = [path for path in (home.pid_file, home.state_file) if path.exists()]
        return remains + list(Path(os.environ["XDG_RUNTIME_DIR"]).iterdir()) == []


Start = Callable[[str], Running]


@pytest.fixture
async def prepare(settings: Settings, scripted: Callable[[str], list[str]]) -> AsyncIterator[Start]:
    made: list[Running] = []

    def prepare(behaviour: str) -> Running:
        made.append(Running(settings, scripted(behaviour)))
        return made[-1]

    yield prepare
    for running in made:
        if running.task is not None and not running.task.done():
            running.task.cancel()
            await asyncio.gather(running.task, return_exceptions=True)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


async def get(started: Started, path: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(f"http://{started.manage_address}{path}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_server_starts_serves_drains_and_leaves_nothing(
    prepare: Start, number: signal.Signals
) -> None:
    running = prepare("good")
    running.start()
    started = await running.started()
    assert started.pid == os.getpid()
    assert not started.has_projects
    assert (await get(started, "/ready")).json() == {
        "status": "ready",
        "checks": {"store": "ok", "workers": "ok"},
    }
    send(number)
    assert await running.code() == 0
    assert running.leaves_nothing()


async def test_failed_worker_fails_the_start_and_leaves_nothing(prepare: Start) -> None:
    running = prepare("failing")
    running.start()
    with pytest.raises(LLMProxyError, match="the moon is in the wrong house"):
        await running.code()
    assert running.leaves_nothing()


async def test_start_can_be_interrupted(prepare: Start) -> None:
    running = prepare("silent")
    running.start()
    async with asyncio.timeout(30):
        while not running.settings.home.state_file.exists():
            await asyncio.sleep(0.01)
    send(signal.SIGINT)
    assert await running.code() == 130
    assert running.leaves_nothing()


async def test_draining_server_is_not_ready_and_a_second_signal_ends_it_at_once(
    prepare: Start,
) -> None:
    running = prepare("stubborn")
    running.start()
    started = await running.started()
    send(signal.SIGTERM)
    async with asyncio.timeout(30):
        while (answer := await get(started, "/ready")).status_code == 200:
            await asyncio.sleep(0)
    assert answer.status_code == 503
    assert answer.json()["status"] == "draining"
    send(signal.SIGTERM)
    async with asyncio.timeout(15):  # far below the 30 s of a drain
        assert await running.code() == 130
    assert running.leaves_nothing()


async def test_hang_up_of_a_daemon_is_only_noted(
    prepare: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    running = prepare("good")
    task = running.start(is_daemon=True)
    started = await running.started()
    send(signal.SIGHUP)
    assert (await get(started, "/ready")).status_code == 200
    assert not task.done()
    assert any("SIGHUP" in record.message for record in caplog.records)
    send(signal.SIGTERM)
    assert await running.code() == 0


async def test_failing_control_plane_ends_the_server(prepare: Start) -> None:
    running = prepare("good")
    running.start()
    await running.started()
    (control,) = [task for task in asyncio.all_tasks() if task.get_name() == "control plane"]
    control.cancel()
    with pytest.raises(LLMProxyError, match="the control plane failed"):
        await running.code()
    assert running.leaves_nothing()


async def test_log_is_reopened_on_request(prepare: Start, tmp_path: Path) -> None:
    log_file = tmp_path / "server.log"
    root, package = logging.getLogger(), logging.getLogger("llm_proxy")
    before = root.handlers[:], root.level, package.level
    running = prepare("good")
    running.settings = msgspec.structs.replace(running.settings, log_file=log_file)
    configure_logging("info", "json", log_file)
    try:
        running.start()
        await running.started()
        log_file.rename(tmp_path / "server.log.1")
        send(signal.SIGUSR1)
        async with asyncio.timeout(30):
            while not log_file.exists():
                await asyncio.sleep(0.01)
        send(signal.SIGTERM)
        assert await running.code() == 0
        assert "stopped" in log_file.read_text()
    finally:
        for handler in root.handlers[:]:
            root.removeHandler(handler)
            handler.close()
        root.handlers[:], root.level, package.level = before
