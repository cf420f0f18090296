from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from llm_proxy.errors import LLMProxyError
from llm_proxy.secrets import Cipher
from llm_proxy.server.configuration import read_configuration
from llm_proxy.server.foundation import Foundation, lay_foundation
from llm_proxy.server.processes import Processes
from llm_proxy.server.state import ServerState, read_state
from llm_proxy.settings import Settings
from llm_proxy.store.database import Store
from llm_proxy.store.projects import Project, create_project
from tests.server.scripted_worker import BEHAVIOURS

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BUSY = 10_000_000 + BEHAVIOURS.index("busy")  # max_request_size, for a picky worker


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # the supervisor's loop


class Server:
    def __init__(self, foundation: Foundation, processes: Processes) -> None:
        self.foundation = foundation
        self.processes = processes
        self.running = asyncio.create_task(processes.run())

    async def end(self) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)

    @property
    def state(self) -> ServerState:
        state = read_state(self.foundation.settings.home.state_file)
        assert state is not None
        return state

    async def ready(self) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.get(f"http://{self.processes.manage_address}/ready")

    async def create_project(self, name: str) -> httpx.Response:
        token = self.foundation.settings.management_token
        assert token is not None
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.post(
                f"http://{self.processes.manage_address}/manage/projects",
                headers={"Authorization": f"Bearer {token.reveal()}"},
                json={"name": name, "api_key": "sk-upstream-key-of-a-test"},
            )

    def create_elsewhere(self) -> None:
        """A project, as another server on the same database does it."""
        key = self.foundation.settings.encryption_key
        assert key is not None
        other = Store(self.foundation.settings.database_path, cipher=Cipher(key))
        other.open(migrate=False)
        try:
            create_project(
                other,
                Project(
                    id="p-elsewhere",
                    name="elsewhere",
                    description="",
                    metadata={},
                    is_active=True,
                    deactivated_at=None,
                    created_at=NOW,
                    updated_at=NOW,
                    api_keys={},
                ),
            )
        finally:
            other.close()

    async def knows_what_is_elsewhere(self) -> bool:
        return "project:p-elsewhere" in await self.seen_by_worker()

    async def reload(self, **changes: Any) -> None:
        changed = msgspec.structs.replace(self.processes.settings, **changes)
        await self.processes.reload(read_configuration(changed))

    async def seen_by_worker(self) -> str:
        host, port = self.processes.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer.decode()


Begin = Callable[[Settings], Awaitable[Server]]


@pytest.fixture
async def begin(scripted: Callable[[str], list[str]]) -> AsyncIterator[Begin]:
    async with AsyncExitStack() as stack:

        async def begin(settings: Settings) -> Server:
            foundation = await lay_foundation(settings, stack)
            processes = Processes(
                foundation, flags={"workers": "1"}, worker_command=scripted("picky")
            )
            await processes.start(stack)
            server = Server(foundation, processes)
            stack.push_async_callback(server.end)
            return server

        yield begin


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_state_names_the_server_and_its_workers(settings: Settings, begin: Begin) -> None:
    server = await begin(settings)
    state = server.state
    assert state.pid == os.getpid()
    assert state.address == server.processes.address
    assert state.manage_address == server.processes.manage_address
    assert state.flags == {"workers": "1"}
    (worker,) = state.workers
    assert str(worker.pid) in await server.seen_by_worker()


async def test_server_is_not_ready_while_a_worker_is_replaced(
    settings: Settings, begin: Begin
) -> None:
    server = await begin(settings)
    (victim,) = server.state.workers
    os.kill(victim.pid, signal.SIGKILL)

    async def is_unwell() -> bool:
        answer = await server.ready()
        return answer.status_code == 503 and answer.json()["checks"]["workers"] == "0 of 1 running"

    async def is_well() -> bool:
        return (await server.ready()).status_code == 200

    await until(is_unwell)
    await until(is_well)
    (replacement,) = server.state.workers
    assert replacement.pid != victim.pid


async def test_workers_know_of_a_change_when_the_call_returns(
    settings: Settings, begin: Begin
) -> None:
    server = await begin(settings)
    answer = await server.create_project("first")
    assert answer.status_code == 201
    assert f"project:{answer.json()['id']}" in await server.seen_by_worker()


async def test_workers_learn_what_another_process_wrote(settings: Settings, begin: Begin) -> None:
    server = await begin(settings)
    server.create_elsewhere()
    await until(server.knows_what_is_elsewhere)


async def test_workers_learn_what_another_process_wrote_while_they_drain(
    settings: Settings, begin: Begin
) -> None:
    server = await begin(msgspec.structs.replace(settings, max_request_size=BUSY))
    await server.end()  # as the supervisor does it
    draining = asyncio.create_task(server.processes.drain(60))
    server.create_elsewhere()
    await until(server.knows_what_is_elsewhere)
    draining.cancel()
    await asyncio.gather(draining, return_exceptions=True)
    await server.processes.cut()


async def test_record_writer_listens_is_replaced_and_finishes(
    settings: Settings, begin: Begin, tmp_path: Path
) -> None:
    event_log = tmp_path / "events.jsonl"
    server = await begin(msgspec.structs.replace(settings, file_event_log=event_log))
    events = str(server.foundation.runtime_folder / "events.sock")

    async def accepts() -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(events) == 0

    assert await accepts()
    pid = server.state.writer_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    async def is_replaced() -> bool:
        return await accepts() and server.state.writer_pid not in (None, pid)

    await until(is_replaced)
    server.processes.reopen_logs()
    await server.processes.drain(5)
    assert server.state.writer_pid is None
    assert not await accepts()


async def test_reload_starts_keeps_replaces_and_ends_the_record_writer(
    settings: Settings, begin: Begin, tmp_path: Path
) -> None:
    server = await begin(settings)
    seen: list[int | None] = [server.state.writer_pid]
    changes: list[dict[str, Any]] = [
        {"file_event_log": tmp_path / "events.jsonl"},
        {"workers": 2},
        {"log_max_backups": 1},
        {"file_event_log": None},
    ]
    for change in changes:
        await server.reload(**change)
        seen.append(server.state.writer_pid)
    none, first, same, second, none_again = seen
    assert (none, none_again) == (None, None)
    assert first == same
    assert second not in (None, first)

    async def are_gone() -> bool:
        return not server.state.draining and not is_alive(first) and not is_alive(second)

    await until(are_gone)
    assert [path.name for path in server.foundation.runtime_folder.glob("*events.sock")] == []


async def test_failed_reload_keeps_the_workers_the_writer_and_the_apis(
    settings: Settings, begin: Begin, tmp_path: Path
) -> None:
    server = await begin(settings)
    before = server.state
    path = tmp_path / "events.jsonl"
    changed = msgspec.structs.replace(server.processes.settings, file_event_log=path, workers=3)
    configuration = read_configuration(changed)
    path.unlink()
    path.mkdir()  # after the check: only the writer finds out
    with pytest.raises(LLMProxyError, match="the record writer exited with code 1"):
        await server.processes.reload(configuration)
    assert server.state.workers == before.workers
    assert server.state.writer_pid is None
    assert (await server.ready()).status_code == 200


async def test_management_knows_the_apis_of_the_configuration_in_force(
    settings: Settings, begin: Begin, tmp_path: Path
) -> None:
    server = await begin(settings)
    path = tmp_path / "providers.yaml"
    path.write_text(
        "apis:\n  mine:\n    base_url: https://upstream.invalid\n"
        "    allowed_endpoints: [/*]\n    allowed_methods: [POST]\n"
    )
    assert set((await server.create_project("one")).json()["api_keys"]) == {"openai"}
    await server.reload(config_path=path)
    assert set((await server.create_project("two")).json()["api_keys"]) == {"mine"}


async def test_fewer_workers_serve_the_sockets_of_all(settings: Settings, begin: Begin) -> None:
    server = await begin(msgspec.structs.replace(settings, workers=3))
    await server.reload(workers=1)
    (worker,) = server.state.workers

    async def has_drained() -> bool:
        return not server.state.draining

    await until(has_drained)
    for _ in range(12):
        assert str(worker.pid) in await server.seen_by_worker()
    await server.reload(workers=4)
    await until(has_drained)
    for _ in range(12):
        assert await server.seen_by_worker()
    assert len(server.state.workers) == 4


def is_alive(pid: int | None) -> bool:
    assert pid is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
