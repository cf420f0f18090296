"""A mock upstream and a real server process, shared by the tests of a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_proxy.manage.client import ManagementClient
from llm_proxy.manage.objects import NewToken, Project
from tests.end_to_end.mock_thread import MockThread
from tests.end_to_end.raw_upstream import RawUpstream
from tests.end_to_end.server_process import ServerProcess

APIS = ("openai", "anthropic", "strict", "impatient", "narrow", "gone")
UPSTREAM_KEY = "sk-upstream-{api}-0123456789abcdef"
LARGEST_BODY = 1024 * 1024

Launch = Callable[..., ServerProcess]


@pytest.fixture(scope="session")
def mock() -> Iterator[MockThread]:
    mock = MockThread()
    yield mock
    mock.close()


@pytest.fixture(scope="session")
def server(mock: MockThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One worker, all records, and bodies of a MiB at most."""
    folder = tmp_path_factory.mktemp("server")
    environ = {"MAX_REQUEST_SIZE": str(LARGEST_BODY)}
    server = ServerProcess(folder, upstream=mock.address, environ=environ)
    try:
        server.start()
        yield server
    finally:
        server.destroy()


@pytest.fixture(scope="session")
def manage(server: ServerProcess) -> Iterator[ManagementClient]:
    with server.manage() as client:
        yield client


@pytest.fixture(scope="session")
def project(manage: ManagementClient) -> Project:
    keys = {api: UPSTREAM_KEY.format(api=api) for api in APIS}
    return manage.create_project({"name": "shared", "api_keys": keys})


@pytest.fixture
def new_token(manage: ManagementClient, project: Project) -> Callable[..., NewToken]:
    def make(**fields: Any) -> NewToken:
        return manage.create_token({"project_id": project.id, "duration_minutes": 60, **fields})

    return make


@pytest.fixture
def token(new_token: Callable[..., NewToken]) -> str:
    return new_token().token


@pytest.fixture
def launch(tmp_path: Path, mock: MockThread) -> Iterator[Launch]:
    """Prepares servers for one test alone, in front of the mock; they aren't started yet."""
    made: list[ServerProcess] = []

    def prepare(**options: Any) -> ServerProcess:
        folder = tmp_path / f"server-{len(made)}"
        folder.mkdir()
        made.append(ServerProcess(folder, **{"upstream": mock.address, **options}))
        return made[-1]

    yield prepare
    for server in made:
        server.destroy()


@pytest.fixture(scope="module")
def raw_upstream() -> Iterator[RawUpstream]:
    upstream = RawUpstream()
    yield upstream
    upstream.close()


@pytest.fixture(scope="module")
def proxy(
    raw_upstream: RawUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server of the module's own, in front of the scripted upstream."""
    server = ServerProcess(tmp_path_factory.mktemp("proxy"), upstream=raw_upstream.address)
    try:
        server.start()
        yield server
    finally:
        server.destroy()


@pytest.fixture(scope="module")
def key(proxy: ServerProcess) -> bytes:
    """A token, as clients send it."""
    return proxy.add_token(UPSTREAM_KEY.format(api="openai")).encode()
