"""Real processes for the supervisor's tests; whatever a test starts is gone after it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_proxy.providers import Api, Providers
from llm_proxy.secrets import new_encryption_key
from llm_proxy.server.channel import WorkerConfig

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
        database=str(tmp_path / "llm-proxy.db"),
        encryption_key=new_encryption_key(),
        providers=Providers(default_api="openai", apis={"openai": api}),
        control_socket=str(tmp_path / "control.sock"),
        events_socket=None,
        management_is_public=True,
        max_request_size=1000,
        debug_headers=False,
    )
