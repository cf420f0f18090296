"""What a token allows, kept to by a real server: exactly, at once, and after a restart."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from llm_proxy.manage.client import ManagementClient
from llm_proxy.manage.objects import NewToken, Project
from tests.end_to_end.conftest import APIS, UPSTREAM_KEY, Launch
from tests.end_to_end.mock_thread import MockThread
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.waiting import eventually

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
QUESTION = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
CONNECTIONS = 12  # enough for each of two workers to have one


async def statuses(url: str, token: str, *, count: int) -> Counter[int]:
    """Of requests sent all at once, each on a connection of its own."""
    headers = {"Authorization": f"Bearer {token}", "X-Mock-Delay": "20ms"}
    limits = httpx.Limits(max_connections=count)
    async with httpx.AsyncClient(
        base_url=url, headers=headers, trust_env=False, verify=False, limits=limits, timeout=30
    ) as client:
        answers = await asyncio.gather(*(client.post(CHAT, json=QUESTION) for _ in range(count)))
    return Counter(answer.status_code for answer in answers)


async def test_cap_admits_exactly_so_many(
    server: ServerProcess, new_token: Callable[..., NewToken], manage: ManagementClient
) -> None:
    made = new_token(max_requests=20)
    assert await statuses(server.url, made.token, count=50) == {200: 20, 429: 30}
    # Neither the count's way to the store nor a new snapshot lets another one in.
    eventually(lambda: manage.get_token(made.id).request_count == 20)
    manage.update_token(made.id, {"name": "used up"})
    assert await statuses(server.url, made.token, count=5) == {429: 5}
    manage.update_token(made.id, {"max_requests": 22})
    assert await statuses(server.url, made.token, count=5) == {200: 2, 429: 3}


def test_use_is_shown_once_it_is_recorded(
    server: ServerProcess, new_token: Callable[..., NewToken], manage: ManagementClient
) -> None:
    made = new_token()
    before = datetime.now(UTC)
    with server.client(made.token) as client:
        for _ in range(3):
            assert client.get("/v1/models").status_code == 200
        # Refused ones are not counted, whatever the reason.
        assert client.get("/v2/models").status_code == 404
        assert client.put("/v1/models").status_code == 405
    shown = eventually(  # the first may be recorded before the others are asked
        lambda: token if (token := manage.get_token(made.id)).request_count >= 3 else None
    )
    assert shown.request_count == 3
    assert shown.last_used_at is not None
    assert before <= shown.last_used_at <= datetime.now(UTC)


def test_token_ends_when_it_expires(
    server: ServerProcess, new_token: Callable[..., NewToken], manage: ManagementClient
) -> None:
    made = new_token()
    expires_at = datetime.now(UTC) + timedelta(seconds=0.5)
    manage.update_token(made.id, {"expires_at": expires_at.isoformat()})
    with server.client(made.token) as client:
        assert client.get("/v1/models").status_code == 200
        time.sleep((expires_at - datetime.now(UTC)).total_seconds())
        answer = client.get("/v1/models")
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "token_expired"


class Clients:
    """Kept connections to every worker, that each know the token already."""

    def __init__(self, server: ServerProcess, token: str) -> None:
        self._all = [server.client(token) for _ in range(CONNECTIONS)]
        assert self.codes() == {"ok"}

    def codes(self) -> set[str]:
        """What a request on each of them is answered."""
        answers = [client.get("/v1/models") for client in self._all]
        return {"ok" if a.is_success else a.json()["error"]["code"] for a in answers}

    def close(self) -> None:
        for client in self._all:
            client.close()


@pytest.fixture(scope="module")
def pair(mock: MockThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of two workers."""
    folder = tmp_path_factory.mktemp("pair")
    server = ServerProcess(folder, upstream=mock.address, arguments=["--workers", "2"])
    try:
        server.start()
        yield server
    finally:
        server.destroy()


@pytest.fixture
def pair_manage(pair: ServerProcess) -> Iterator[ManagementClient]:
    with pair.manage() as client:
        yield client


@pytest.fixture
def fresh(
    pair_manage: ManagementClient, request: pytest.FixtureRequest
) -> tuple[Project, NewToken]:
    keys = {api: UPSTREAM_KEY.format(api=api) for api in APIS}
    project = pair_manage.create_project({"name": request.node.name, "api_keys": keys})
    made = pair_manage.create_token({"project_id": project.id, "duration_minutes": 60})
    return project, made


@pytest.fixture
def clients(pair: ServerProcess, fresh: tuple[Project, NewToken]) -> Iterator[Clients]:
    clients = Clients(pair, fresh[1].token)
    yield clients
    clients.close()


def test_revoked_token_is_refused_from_the_next_request_on(
    pair_manage: ManagementClient, fresh: tuple[Project, NewToken], clients: Clients
) -> None:
    _, made = fresh
    pair_manage.revoke_token(made.id)
    assert clients.codes() == {"token_revoked"}
    pair_manage.update_token(made.id, {"is_active": True})
    assert clients.codes() == {"ok"}


def test_deactivated_project_is_refused_from_the_next_request_on(
    pair_manage: ManagementClient, fresh: tuple[Project, NewToken], clients: Clients
) -> None:
    project, _ = fresh
    pair_manage.update_project(project.id, {"is_active": False})
    assert clients.codes() == {"project_inactive"}
    pair_manage.update_project(project.id, {"is_active": True})
    assert clients.codes() == {"ok"}


def test_tokens_of_a_project_are_refused_after_a_bulk_revoke_and_a_delete(
    pair_manage: ManagementClient, fresh: tuple[Project, NewToken], clients: Clients
) -> None:
    project, _ = fresh
    pair_manage.revoke_project_tokens(project.id)
    assert clients.codes() == {"token_revoked"}
    pair_manage.delete_project(project.id, force=True)
    assert clients.codes() == {"invalid_token"}


def test_rotated_token_is_refused_from_the_next_request_on(
    pair: ServerProcess,
    pair_manage: ManagementClient,
    fresh: tuple[Project, NewToken],
    clients: Clients,
) -> None:
    rotated = pair_manage.rotate_token(fresh[1].id)
    assert clients.codes() == {"token_expired"}
    Clients(pair, rotated.token).close()


def test_new_upstream_key_is_used_from_the_next_request_on(
    pair_manage: ManagementClient,
    fresh: tuple[Project, NewToken],
    clients: Clients,
    mock: MockThread,
) -> None:
    project, _ = fresh
    pair_manage.update_project(project.id, {"api_keys": {"openai": "sk-another-key-0123456789"}})
    assert clients.codes() == {"ok"}
    keys = {
        value
        for request in mock.requests[-CONNECTIONS:]
        for name, value in request.headers
        if name.lower() == b"authorization"
    }
    assert keys == {b"Bearer sk-another-key-0123456789"}
    pair_manage.update_project(project.id, {"api_keys": {"openai": None}})
    assert clients.codes() == {"no_upstream_key"}


async def test_counts_survive_a_clean_restart(launch: Launch) -> None:
    server = launch(arguments=["--workers", "2"])
    server.start()
    with server.manage() as manage:
        fields = {"name": "kept", "api_keys": {"openai": "sk-upstream-0123456789"}}
        made = manage.create_token(
            {
                "project_id": manage.create_project(fields).id,
                "duration_minutes": 5,
                "max_requests": 30,
            }
        )
    assert await statuses(server.url, made.token, count=17) == {200: 17}
    assert server.stop() == 0
    server.arguments[-1] = "1"
    server.start()
    with server.manage() as manage:
        assert manage.get_token(made.id).request_count == 17
    assert await statuses(server.url, made.token, count=20) == {200: 13, 429: 7}
