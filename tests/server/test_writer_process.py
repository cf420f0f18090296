from __future__ import annotations

import signal
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from llm_proxy.errors import ConfigError, LLMProxyError
from llm_proxy.server.writer_process import WriterProcess, check_event_log

pytestmark = pytest.mark.anyio

SCRIPT = Path(__file__).with_name("scripted_writer.py")
Launch = Callable[[str], Awaitable[WriterProcess]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the supervisor's loop


@pytest.fixture
def lost() -> list[int]:
    """What a writer told of records that it lost."""
    return []


@pytest.fixture
async def launch(lost: list[int]) -> AsyncIterator[Launch]:
    writers: list[WriterProcess] = []

    async def launch(behaviour: str) -> WriterProcess:
        limit_s = 0.1 if behaviour == "silent" else 20
        writer = await WriterProcess.launch(
            [sys.executable, str(SCRIPT), behaviour],
            ready_timeout_s=limit_s,
            on_lost=lost.append,
        )
        writers.append(writer)
        return writer

    yield launch
    for writer in writers:
        writer.kill()
        await writer.wait()


async def test_writer_becomes_ready_and_finishes_when_asked(launch: Launch) -> None:
    writer = await launch("good")
    await writer.wait_until_ready()
    writer.finish()
    assert await writer.wait() == 0


async def test_what_is_lost_is_heard_before_the_end(launch: Launch, lost: list[int]) -> None:
    writer = await launch("losing")
    await writer.wait_until_ready()
    writer.finish()
    await writer.wait()
    assert lost == [2, 1]


async def test_crash_at_start_is_told(launch: Launch) -> None:
    writer = await launch("crash")
    with pytest.raises(LLMProxyError, match="exited with code 4 before it was ready"):
        await writer.wait_until_ready()


async def test_silent_writer_is_given_up(launch: Launch) -> None:
    writer = await launch("silent")
    with pytest.raises(LLMProxyError, match=r"not ready within 0\.1 s"):
        await writer.wait_until_ready()
    writer.kill()
    assert await writer.wait() == -signal.SIGKILL


async def test_command_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        await WriterProcess.launch(["/no/such/program"])


def test_event_log_is_created_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    check_event_log(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_event_log_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be written .*choose another with"):
        check_event_log(tmp_path)
