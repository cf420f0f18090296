"""Real processes for the supervisor's tests; whatever a test starts is gone after it."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llm_proxy.providers import Api, Providers
from llm_proxy.secrets import Secret, new_encryption_key
from llm_proxy.server.channel import WorkerConfig
from llm_proxy.settings import Settings, load_settings

SCRIPTED_WORKER = Path(__file__).with_name("scripted_worker.py")


@pytest.fixture
def scripted() -> Callable[[str], list[str]]:
    """The command of a worker that behaves like its argument: see scripted_worker.py."""
    return lambda behaviour: [sys.executable, str(SCRIPTED_WORKER), behaviour]


@pytest.fixture
def worker_config(tmp_path: Path) -> WorkerConfig:
    api = Api(
        name="openai",
        base_url="https://upstream.invalid",
        allowed_endpoints=("/*",),
        allowed_methods=("POST",),
    )
    return WorkerConfig(
        database=Secret(str(tmp_path / "llm-proxy.db")),
        encryption_key=new_encryption_key(),
        providers=Providers(default_api="openai", apis={"openai": api}),
        control_socket=str(tmp_path / "control.sock"),
        events_socket=None,
        management_is_public=True,
        max_request_size=1000,
        debug_headers=False,
    )


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A home of its own, free ports, and the management API on an address of its own."""
    environ = {"LLM_PROXY_HOME": str(tmp_path / "home")}
    flags = {"listen_addr": "127.0.0.1:0", "manage_addr": "127.0.0.1:0"}
    with tempfile.TemporaryDirectory(prefix="lp-", dir="/tmp") as folder:  # short: Unix sockets
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield load_settings(flags, environ=environ)
