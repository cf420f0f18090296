from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from llm_proxy.errors import LLMProxyError
from llm_proxy.server.record_writer import RecordWriter, writer_arguments
from llm_proxy.settings import Settings

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the supervisor's loop


class Harness:
    def __init__(self, settings: Settings, folder: Path) -> None:
        self.event_log = folder / "events.jsonl"
        settings = msgspec.structs.replace(
            settings, file_event_log=self.event_log, log_file=folder / "log"
        )
        arguments = writer_arguments(settings)
        assert arguments is not None
        self.changed = asyncio.Event()
        self.writer = RecordWriter(
            arguments,
            socket=Path(os.environ["XDG_RUNTIME_DIR"]) / "events",
            on_change=self.changed.set,
            on_lost=lambda records: None,
        )

    def accepts(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self.writer.socket)) == 0

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
async def harness(settings: Settings, tmp_path: Path) -> AsyncIterator[Harness]:
    harness = Harness(settings, tmp_path)
    yield harness
    await harness.writer.kill()


async def test_writer_listens_is_replaced_reopens_and_finishes(harness: Harness) -> None:
    assert harness.writer.pid is None
    await harness.writer.start()
    first = harness.writer.pid
    assert first is not None
    assert harness.accepts()
    os.kill(first, signal.SIGKILL)
    await harness.until(lambda: harness.writer.pid not in (None, first))
    assert harness.accepts()
    harness.event_log.rename(harness.event_log.with_suffix(".1"))
    harness.writer.reopen_logs()
    async with asyncio.timeout(30):
        while not harness.event_log.exists():
            await asyncio.sleep(0.01)
    await harness.writer.finish()
    assert harness.writer.pid is None
    assert not harness.accepts()


async def test_writer_that_hangs_is_killed(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    await harness.writer.start()
    assert harness.writer.pid is not None
    os.kill(harness.writer.pid, signal.SIGSTOP)
    await harness.writer.finish(timeout_s=0.1)
    assert harness.writer.pid is None
    assert "killed, records are lost" in caplog.text


async def test_writer_that_cannot_start_is_told(harness: Harness) -> None:
    harness.event_log.mkdir()
    with pytest.raises(LLMProxyError, match="the record writer exited with code 1"):
        await harness.writer.start()


def test_without_an_event_log_there_is_nothing_to_write(settings: Settings) -> None:
    assert writer_arguments(settings) is None
