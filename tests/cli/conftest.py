"""The control plane on a real Hypercorn, and command lines to use against it."""

from __future__ import annotations

import asyncio
import io
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config

from llm_proxy.cli.main import run
from llm_proxy.secrets import Cipher, Secret, new_encryption_key
from llm_proxy.server.audit_log import AuditLog
from llm_proxy.server.auditor import Auditor
from llm_proxy.server.channel import Change
from llm_proxy.server.control.app import create_app
from llm_proxy.server.control.context import ControlContext, HealthReport
from llm_proxy.store.database import Store

MANAGEMENT_TOKEN = "management-token-for-tests"


@dataclass(frozen=True)
class Outcome:
    exit_code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def llm_proxy(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs one command line in this process, with `stdin` piped in."""

    def command(*arguments: str, stdin: str = "") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        exit_code = run(arguments)
        printed = capsys.readouterr()
        return Outcome(exit_code, printed.out, printed.err)

    return command


@pytest.fixture
def control_plane(tmp_path: Path) -> Iterator[str]:
    """The base URL of a management API on a store of its own."""
    store = Store(tmp_path / "served.db", cipher=Cipher(new_encryption_key()))
    store.open(migrate=True)

    async def publish(changes: list[Change]) -> None:
        pass

    context = ControlContext(
        store=store,
        management_token=Secret(MANAGEMENT_TOKEN),
        apis=lambda: ("openai", "anthropic"),
        default_api=lambda: "openai",
        publish=publish,
        health=lambda: HealthReport(ready=True, draining=False, checks={}),
        audit=Auditor(
            AuditLog(store, chain="one", file=None, retention_s=86400), summary_every_s=5
        ),
    )
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = None
    with asyncio.Runner() as runner:
        loop, stop = runner.get_loop(), asyncio.Event()
        served = serve(create_app(context), config, shutdown_trigger=stop.wait)  # type: ignore[arg-type]
        thread = threading.Thread(target=runner.run, args=(served,))
        thread.start()
        yield f"http://127.0.0.1:{port}"
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
    store.close()


@pytest.fixture
def manage(llm_proxy: Run, control_plane: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`llm-proxy manage` against that control plane."""
    monkeypatch.setenv("LLM_PROXY_MANAGE_API_BASE_URL", control_plane)
    monkeypatch.setenv("MANAGEMENT_TOKEN", MANAGEMENT_TOKEN)

    def command(*arguments: str, stdin: str = "") -> Outcome:
        return llm_proxy("manage", *arguments, stdin=stdin)

    return command
