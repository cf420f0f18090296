from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from llm_proxy.errors import ConfigError
from llm_proxy.server.configuration import Configuration
from llm_proxy.server.reloader import Reloader
from llm_proxy.settings import Settings

pytestmark = pytest.mark.anyio


class FakeProcesses:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.begun = 0
        self.results: asyncio.Queue[str | None] = asyncio.Queue()
        self.failure: Exception | None = None

    async def reload(self, configuration: Configuration) -> None:
        if self.failure is not None:
            raise self.failure
        self.settings = configuration.settings

    def begin_reload(self) -> None:
        self.begun += 1

    async def end_reload(self, error: str | None) -> None:
        self.results.put_nowait(error)


class Bench:
    def __init__(self, settings: Settings) -> None:
        self.processes = FakeProcesses(settings)
        self.wanted = settings
        self.applied: list[Settings] = []
        self.reread: Callable[[], Settings] = lambda: self.wanted
        reloader = Reloader(self.processes, lambda: self.reread(), on_reload=self.applied.append)
        self.asked = asyncio.Event()
        self.task = asyncio.create_task(reloader.run(self.asked))

    def want(self, **changes: Any) -> None:
        self.wanted = msgspec.structs.replace(self.processes.settings, **changes)

    async def outcome(self) -> str | None:
        async with asyncio.timeout(10):
            return await self.processes.results.get()

    async def reload(self) -> str | None:
        self.asked.set()
        return await self.outcome()


@pytest.fixture
async def bench(settings: Settings) -> AsyncIterator[Bench]:
    bench = Bench(settings)
    yield bench
    bench.task.cancel()
    await asyncio.gather(bench.task, return_exceptions=True)


async def test_new_settings_are_in_force_and_applied(bench: Bench) -> None:
    bench.want(workers=3)
    assert await bench.reload() is None
    assert bench.processes.settings.workers == 3
    assert bench.applied == [bench.wanted]


async def test_what_can_be_known_to_be_wrong_reaches_no_process(bench: Bench) -> None:
    bench.processes.failure = AssertionError("a process was bothered")
    before = bench.processes.settings

    def refuse() -> Settings:
        raise ConfigError("LOG_LEVEL must be a word")

    bench.want(pid_file=before.home.path / "other.pid")
    assert "PID_FILE can't be changed" in (await bench.reload() or "")
    bench.want(config_path=before.home.path / "none.yaml")
    assert "none.yaml" in (await bench.reload() or "")
    bench.reread = refuse
    assert await bench.reload() == "LOG_LEVEL must be a word"
    assert bench.processes.settings == before
    assert bench.applied == []


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (OSError(24, "Too many open files"), "[Errno 24] Too many open files"),
        (ZeroDivisionError("oops"), "ZeroDivisionError: oops; see the log"),
    ],
)
async def test_failure_that_nobody_foresaw_is_survived(
    bench: Bench, failure: Exception, told: str
) -> None:
    bench.processes.failure = failure
    assert await bench.reload() == told
    assert bench.applied == []
    bench.processes.failure = None
    assert await bench.reload() is None


async def test_however_often_one_asks_during_a_reload_one_more_follows(bench: Bench) -> None:
    is_reading, may_go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def reread() -> Settings:
        loop.call_soon_threadsafe(is_reading.set)
        assert may_go_on.wait(10)
        return bench.wanted

    bench.reread = reread
    bench.asked.set()
    async with asyncio.timeout(10):
        await is_reading.wait()
    for _ in range(5):
        bench.asked.set()
        await asyncio.sleep(0)
    may_go_on.set()
    assert [await bench.outcome(), await bench.outcome()] == [None, None]
    await asyncio.sleep(0)
    assert bench.processes.begun == 2
