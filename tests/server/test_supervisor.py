from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from llm_proxy.errors import LLMProxyError
from llm_proxy.logs import configure_logging
from llm_proxy.server.state import ReloadResult, ServerState, read_state
from llm_proxy.server.stop_request import leave_stop_request
from llm_proxy.server.supervisor import Started, Supervisor
from llm_proxy.settings import Settings, load_or_create_secrets

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the supervisor's loop


class Running:
    """A supervisor in this process, with scripted workers."""

    def __init__(self, settings: Settings, command: list[str]) -> None:
        self.settings = settings
        self.reread: Callable[[], Settings] = lambda: load_or_create_secrets(self.settings)[0]
        self._command = command
        self._started: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[int] | None = None

    def start(self, *, is_daemon: bool = False, drain_timeout_s: float = 30.0) -> asyncio.Task[int]:
        supervisor = Supervisor(
            self.settings,
            flags={"workers": "1"},
            announce=self._started.set_result,
            reread=lambda: self.reread(),
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

    @property
    def state(self) -> ServerState:
        state = read_state(self.settings.home.state_file)
        assert state is not None
        return state

    async def reloaded(self, number: int) -> ReloadResult:
        async with asyncio.timeout(30):
            while (result := self.state.last_reload) is None or result.number < number:
                await asyncio.sleep(0.01)
        return result

    def alter(self, **changes: Any) -> None:
        """What a reload will find."""
        self.settings = msgspec.structs.replace(self.settings, **changes)

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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
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
    running = prepare("busy")
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


async def test_stop_may_grant_another_time_and_change_its_mind(
    prepare: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    running = prepare("busy")
    running.start()
    started = await running.started()
    folder = Path(running.state.runtime_folder or "")
    leave_stop_request(folder, 7200.0)
    send(signal.SIGTERM)
    async with asyncio.timeout(30):
        while (await get(started, "/ready")).status_code == 200:
            await asyncio.sleep(0)
    leave_stop_request(folder, 0.0)
    send(signal.SIGTERM)
    assert await running.code() == 0
    waits = [record.getMessage() for record in caplog.records if "draining for" in record.message]
    assert waits == ["draining for 7200 s at most", "draining for 0 s at most"]
    assert running.leaves_nothing()


@pytest.mark.parametrize("is_daemon", [True, False])
async def test_hang_up_brings_new_workers_while_the_server_stays_ready(
    prepare: Start, is_daemon: bool
) -> None:
    running = prepare("good")
    task = running.start(is_daemon=is_daemon)
    started = await running.started()
    before = {worker.pid for worker in running.state.workers}
    running.alter(workers=3)
    send(signal.SIGHUP)
    while running.state.last_reload is None:
        assert (await get(started, "/ready")).status_code == 200
    assert (await running.reloaded(1)).error is None
    after = {worker.pid for worker in running.state.workers}
    assert len(after) == 3
    assert not before & after
    assert not task.done()
    send(signal.SIGTERM)
    assert await running.code() == 0
    assert running.leaves_nothing()


def own_address(folder: Path, started: Started) -> Path:
    """A provider file whose api is the server that reads it."""
    path = folder / "providers.yaml"
    path.write_text(
        f"default_api: me\napis:\n  me:\n    base_url: http://{started.address}\n"
        "    allowed_endpoints: [/v1/models]\n    allowed_methods: [GET]\n"
    )
    return path


async def test_reload_that_is_refused_changes_nothing_and_says_why(
    prepare: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    running = prepare("picky")
    running.start()
    started = await running.started()
    before = running.state.workers
    original = running.settings
    changes: list[tuple[dict[str, Any], str]] = [
        ({"max_request_size": 13}, "a gateway worker did not start: the moon is in the wrong"),
        ({"max_request_size": 11, "workers": 2}, "a gateway worker exited with code 3 before"),
        ({"config_path": tmp_path / "none.yaml"}, "none.yaml"),
        ({"manage_addr": None}, f"MANAGE_ADDR can't be changed from {original.manage_addr} to"),
        ({"file_event_log": tmp_path / "none" / "log"}, "--file-event-log"),
        ({"config_path": own_address(tmp_path, started)}, "is this server itself"),
    ]
    for number, (change, reason) in enumerate(changes, 1):
        running.settings = original
        running.alter(**change)
        send(signal.SIGHUP)
        error = (await running.reloaded(number)).error
        assert error is not None
        assert reason in error
        assert f"the configuration was not reloaded: {error}" in caplog.messages
        assert running.state.workers == before
        assert (await get(started, "/ready")).status_code == 200
    running.settings = original
    send(signal.SIGTERM)
    assert await running.code() == 0


async def test_stop_during_a_reload_undoes_it(prepare: Start) -> None:
    running = prepare("picky")
    running.start()
    await running.started()
    running.alter(max_request_size=12)  # its worker never gets ready
    send(signal.SIGHUP)
    async with asyncio.timeout(30):
        while running.state.reloads == 0:
            await asyncio.sleep(0.01)
    send(signal.SIGTERM)
    async with asyncio.timeout(10):  # less than the time limit of what never gets ready
        assert await running.code() == 0
    assert running.leaves_nothing()


async def test_reload_follows_the_log_to_another_file(prepare: Start, tmp_path: Path) -> None:
    with own_logging("info", tmp_path / "old.log"):
        running = prepare("good")
        running.alter(log_file=tmp_path / "old.log", log_format="json")
        running.start()
        await running.started()
        running.alter(log_file=tmp_path / "new.log")
        send(signal.SIGHUP)
        await running.reloaded(1)
        assert "the configuration was reloaded (workers: 1)" in (tmp_path / "new.log").read_text()
        running.alter(log_level="error")
        send(signal.SIGHUP)
        await running.reloaded(2)
        send(signal.SIGTERM)
        assert await running.code() == 0
    assert "stopped" not in (tmp_path / "new.log").read_text()


async def test_failing_control_plane_ends_the_server(prepare: Start) -> None:
    running = prepare("good")
    running.start()
    await running.started()
    (control,) = [task for task in asyncio.all_tasks() if task.get_name() == "control plane"]
    control.cancel()
    with pytest.raises(LLMProxyError, match="the control plane failed"):
        await running.code()
    assert running.leaves_nothing()


@contextmanager
def own_logging(level: str, file: Path) -> Iterator[None]:
    """This process logs as a server does, and then as before."""
    root, package = logging.getLogger(), logging.getLogger("llm_proxy")
    before = root.handlers[:], root.level, package.level
    configure_logging(level, "json", file)
    try:
        yield
    finally:
        for handler in root.handlers[:]:
            root.removeHandler(handler)
            handler.close()
        root.handlers[:], root.level, package.level = before


async def test_log_is_reopened_on_request(prepare: Start, tmp_path: Path) -> None:
    log_file = tmp_path / "server.log"
    running = prepare("good")
    running.alter(log_file=log_file)
    with own_logging("info", log_file):
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
