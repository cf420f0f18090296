from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest

from llm_proxy.database_url import parse_database
from llm_proxy.errors import LLMProxyError, StoreUnavailable
from llm_proxy.home import Home
from llm_proxy.secrets import new_encryption_key
from llm_proxy.server.foundation import lay_foundation
from llm_proxy.server.runtime_folder import make_runtime_folder
from llm_proxy.server.state import ServerState, write_state
from llm_proxy.settings import Address, Settings

pytestmark = pytest.mark.anyio


async def lay(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        await lay_foundation(settings, stack)


async def failure_of(settings: Settings) -> str:
    with pytest.raises(LLMProxyError) as caught:
        await lay(settings)
    assert not settings.home.pid_file.exists()
    assert list(Path(os.environ["XDG_RUNTIME_DIR"]).iterdir()) == []
    return str(caught.value)


async def test_everything_is_given_back(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        foundation = await lay_foundation(settings, stack)
        assert {path.name for path in foundation.created_secrets} == {
            "management_token",
            "encryption_key",
        }
        assert len(foundation.control_sockets) == 2
        address = foundation.listeners[0].getsockname()
        assert settings.home.pid_file.exists()
    assert sorted(path.name for path in settings.home.path.iterdir()) == [
        "encryption_key",
        "host_id",
        "llm-proxy.db",
        "management_token",
    ]
    assert not foundation.runtime_folder.exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=10)
    await lay(settings)


async def test_home_is_locked_also_with_a_pid_file_elsewhere(
    settings: Settings, tmp_path: Path
) -> None:
    elsewhere = msgspec.structs.replace(settings, pid_file=tmp_path / "other.pid")
    async with AsyncExitStack() as stack:
        await lay_foundation(elsewhere, stack)
        assert (tmp_path / "other.pid").read_text() == f"{os.getpid()}\n"
        with pytest.raises(LLMProxyError, match=f"pid {os.getpid()} already runs here"):
            await lay(settings)
    assert not (tmp_path / "other.pid").exists()


async def test_unusable_home_is_one_sentence(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    broken = msgspec.structs.replace(settings, home=Home(tmp_path / "file"))
    with pytest.raises(LLMProxyError, match="a file is in its way; set LLM_PROXY_HOME"):
        await lay(broken)


async def test_bad_provider_file_leaves_no_database(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "providers.yaml"
    path.write_text("default_api: openai\napiz: {}\n")
    reason = await failure_of(msgspec.structs.replace(settings, config_path=path))
    assert f"{path}:2" in reason
    assert "apiz" in reason
    assert not settings.database_path.exists()


async def test_port_in_use_leaves_no_database(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        address = Address("127.0.0.1", port)
        reason = await failure_of(msgspec.structs.replace(settings, listen_addr=address))
        assert f"127.0.0.1:{port} is in use" in reason
        reason = await failure_of(msgspec.structs.replace(settings, manage_addr=address))
        assert "--manage-addr" in reason
    assert not settings.database_path.exists()


async def test_a_start_without_its_database_server_fails_as_any_start(settings: Settings) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # and doesn't listen
        url = parse_database(f"postgresql://u@127.0.0.1:{deaf.getsockname()[1]}/d")
        with pytest.raises(StoreUnavailable, match="can't be reached") as caught:
            await lay(msgspec.structs.replace(settings, database_url=url))
    assert caught.value.exit_code == 1  # as in the background, where nothing tells more
    assert list(settings.home.path.glob("*_key")) == []


@pytest.mark.parametrize("field", ["listen_addr", "manage_addr"])
async def test_upstream_that_is_the_server_itself_is_told(
    settings: Settings, tmp_path: Path, field: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = tmp_path / "providers.yaml"
    path.write_text(
        "default_api: me\napis:\n  me:\n"
        f"    base_url: http://localhost:{port}\n"
        "    allowed_endpoints: [/v1/models]\n    allowed_methods: [GET]\n"
    )
    changed = {"config_path": path, field: Address("127.0.0.1", port)}
    reason = await failure_of(msgspec.structs.replace(settings, **changed))
    assert reason == (
        f"api me: its base_url http://localhost:{port} is this server itself "
        f"(127.0.0.1:{port}); give the address of the upstream"
    )


async def test_event_log_in_an_impossible_place_is_told(settings: Settings, tmp_path: Path) -> None:
    broken = msgspec.structs.replace(settings, file_event_log=tmp_path / "none" / "events.jsonl")
    assert "--file-event-log" in await failure_of(broken)


async def test_database_that_is_none_is_told_and_left_alone(
    settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "notes.db"
    path.write_text("dear diary" * 100)
    reason = await failure_of(msgspec.structs.replace(settings, database_path=path))
    assert "isn't a SQLite database" in reason
    assert path.read_text() == "dear diary" * 100


async def test_locked_database_is_told(settings: Settings) -> None:
    await lay(settings)
    holder = sqlite3.connect(settings.database_path, isolation_level=None)
    try:
        holder.execute("PRAGMA locking_mode=EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        reason = await failure_of(settings)
        assert f"the database {settings.database_path} " in reason
        assert "locked" in reason
    finally:
        holder.close()


async def test_key_generated_for_a_database_of_another_key_is_not_kept(
    settings: Settings,
) -> None:
    other = msgspec.structs.replace(settings, encryption_key=new_encryption_key())
    await lay(other)
    key_file = settings.home.secret_file("encryption_key")
    assert not key_file.exists()
    assert "ENCRYPTION_KEY" in await failure_of(settings)
    assert not key_file.exists()


async def test_remains_of_a_killed_server_are_removed_and_its_port_awaited(
    settings: Settings, tmp_path: Path
) -> None:
    settings.home.ensure()
    stale = make_runtime_folder(os.environ)
    state = ServerState(
        pid=999999,
        address="127.0.0.1:1",
        manage_address=None,
        version="0.1.0",
        started_at=0.0,
        runtime_folder=str(stale),
        workers=[],
        flags={},
    )
    write_state(settings.home.state_file, state)
    settings.home.pid_file.write_text("999999\n")
    worker_of_old = socket.create_server(("127.0.0.1", 0))
    address = Address(*worker_of_old.getsockname())
    asyncio.get_running_loop().call_later(0.2, worker_of_old.close)
    await lay(msgspec.structs.replace(settings, listen_addr=address))
    assert not stale.exists()
