"""Two servers on one PostgreSQL: caps hold in total, and each obeys what the other was told."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_proxy.database_url import DatabaseUrl
from llm_proxy.secrets import new_encryption_key
from tests.end_to_end.counting_upstream import CountingUpstream, ask
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.waiting import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def upstream() -> Iterator[CountingUpstream]:
    upstream = CountingUpstream()
    yield upstream
    upstream.close()


@pytest.fixture
def servers(
    upstream: CountingUpstream, postgres_url: DatabaseUrl, tmp_path: Path
) -> Iterator[list[ServerProcess]]:
    environ = {
        "DATABASE_URL": postgres_url.reveal(),
        "ENCRYPTION_KEY": new_encryption_key().reveal(),
        "MANAGEMENT_TOKEN": "the-management-token-of-both",
    }
    made = []
    try:
        for name in ("one", "other"):
            folder = tmp_path / name
            folder.mkdir()
            server = ServerProcess(folder, upstream=upstream.address, environ=environ)
            made.append(server)
            server.start()
        yield made
    finally:
        for server in made:
            server.destroy()


def code(server: ServerProcess, token: str) -> str:
    headers = {"Authorization": f"Bearer {token}"}
    answer = httpx.get(f"{server.url}/v1/models", headers=headers, trust_env=False, verify=False)
    return "ok" if answer.is_success else answer.json()["error"]["code"]


async def test_cap_holds_over_both_servers_and_the_death_of_one(
    servers: list[ServerProcess], upstream: CountingUpstream
) -> None:
    one, other = servers
    with one.manage() as manage:
        project = manage.create_project({"name": "p", "api_key": "sk-upstream"})
        fields = {"project_id": project.id, "duration_minutes": 60}
        made = manage.create_token({**fields, "max_requests": 200})
        answers = await asyncio.gather(
            *(
                ask(server.address, made.token, name=made.id, count=150, connections=10)
                for server in servers
            )
        )
        assert sum(answer["200"] for answer in answers) == upstream.counts[made.id] == 200
        eventually(lambda: manage.get_token(made.id).request_count == 200)

        made = manage.create_token({**fields, "max_requests": 1000})
        pids = [other.state.pid, *other.worker_pids]

        def kill(name: str) -> None:
            if upstream.counts[made.id] == 300:
                for pid in pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

        upstream.on_arrival = kill
        await asyncio.gather(
            *(
                ask(server.address, made.token, name=made.id, count=250, connections=10)
                for server in servers
            )
        )
        await asyncio.to_thread(other.process.wait)
        other.start()
        answers = await asyncio.gather(
            *(
                ask(server.address, made.token, name=made.id, count=600, connections=10)
                for server in servers
            )
        )
        assert 1000 - 10 <= upstream.counts[made.id] <= 1000


def test_text_that_postgresql_refuses_is_no_failure(servers: list[ServerProcess]) -> None:
    headers = {"Authorization": "Bearer the-management-token-of-both"}
    url = f"{servers[0].url}/manage"
    paths = {"tokens/%00": 404, "projects/%00": 404, "tokens?project_id=%00": 400}
    for path, status in paths.items():
        answer = httpx.get(f"{url}/{path}", headers=headers, trust_env=False, verify=False)
        assert answer.status_code == status, answer.text
    fields: dict[str, Any] = {"name": "a\0b", "api_key": "sk-upstream"}
    answer = httpx.post(
        f"{url}/projects", headers=headers, json=fields, trust_env=False, verify=False
    )
    assert answer.status_code == 400
    fields = {"name": "p", "api_key": "sk-upstream", "metadata": {"a\0": "\0"}, "description": "\0"}
    answer = httpx.post(
        f"{url}/projects", headers=headers, json=fields, trust_env=False, verify=False
    )
    assert answer.status_code == 400
    answer = httpx.post(
        f"{url}/projects", headers=headers, json=fields | {"description": ""}, trust_env=False
    )
    assert answer.status_code == 201


def test_revocation_on_one_is_obeyed_by_the_other_within_a_second(
    servers: list[ServerProcess],
) -> None:
    one, other = servers
    with one.manage() as manage:
        project = manage.create_project({"name": "p", "api_key": "sk-upstream"})
        fields = {"project_id": project.id, "duration_minutes": 60}
        took = []
        for _ in range(3):
            made = manage.create_token(fields)
            assert code(one, made.token) == code(other, made.token) == "ok"
            manage.revoke_token(made.id)
            revoked_at = time.monotonic()
            assert code(one, made.token) == "token_revoked"
            while code(other, made.token) == "ok":
                assert time.monotonic() - revoked_at < 20
            took.append(time.monotonic() - revoked_at)
            assert code(other, made.token) == "token_revoked"
    assert min(took) < 2.0  # a busy machine takes a part of it, and may be late once
