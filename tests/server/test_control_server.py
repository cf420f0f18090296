from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from llm_proxy.errors import LLMProxyError
from llm_proxy.secrets import Cipher, Secret, new_encryption_key
from llm_proxy.server.channel import Change
from llm_proxy.server.control.context import ControlContext, HealthReport
from llm_proxy.server.control_server import ControlServer
from llm_proxy.server.sockets import bind_tcp, bind_unix
from llm_proxy.store.database import Store

pytestmark = pytest.mark.anyio


async def publish(changes: Sequence[Change]) -> None:
    pass


@pytest.fixture
def context(tmp_path: Path) -> ControlContext:
    return ControlContext(
        store=Store(tmp_path / "llm-proxy.db", cipher=Cipher(new_encryption_key())),
        management_token=Secret("m" * 20),
        apis=lambda: ("openai",),
        default_api=lambda: "openai",
        publish=publish,
        health=lambda: HealthReport(ready=True, draining=False, checks={}),
    )


async def test_both_sockets_are_served_until_stopped(
    context: ControlContext, tmp_path: Path
) -> None:
    path = tmp_path / "control.sock"
    tcp = bind_tcp("127.0.0.1", 0, flag="--manage-addr")
    host, port = tcp.getsockname()
    server = ControlServer(context, [bind_unix(path), tcp])
    waiting = asyncio.create_task(server.wait())
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    async with (
        httpx.AsyncClient(transport=transport, base_url="http://control") as private,
        httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as public,
    ):
        for client in (private, public):
            answer = await client.get("/live")
            assert answer.json() == {"status": "alive"}
            assert "server" not in answer.headers
        async with asyncio.timeout(30):
            await server.stop()
            await waiting
        with pytest.raises(httpx.ConnectError):
            await public.get("/live")


async def test_connection_that_its_client_closed_is_not_held_for_long(
    context: ControlContext, tmp_path: Path
) -> None:
    path = tmp_path / "control.sock"
    server = ControlServer(context, [bind_unix(path)], keep_alive_s=0.05)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /live HTTP/1.1\r\nHost: control\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n")
    tasks = len(asyncio.all_tasks())  # one of them reads from the connection
    writer.close()
    async with asyncio.timeout(30):
        while len(asyncio.all_tasks()) > tasks - 2:
            await asyncio.sleep(0.01)
    await server.stop()


async def test_end_without_stop_is_an_error(context: ControlContext, tmp_path: Path) -> None:
    server = ControlServer(context, [bind_unix(tmp_path / "control.sock")])
    (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "control plane"]
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(LLMProxyError, match="ended by itself"):
        await server.wait()
    await server.stop()
