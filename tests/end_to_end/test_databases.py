"""A real server whose database is a PostgreSQL."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from llm_proxy.database_url import DatabaseUrl
from llm_proxy.manage.client import ManagementClient
from llm_proxy.secrets import Secret
from tests.end_to_end.conftest import Launch
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.waiting import eventually
from tests.postgres_server import PostgresServer

PASSWORD = "sesame-open-0123456789"


@pytest.fixture
def url(own_postgres_server: PostgresServer) -> DatabaseUrl:
    return replace(own_postgres_server.new_database(), password=Secret(PASSWORD))


def status(server: ServerProcess, token: str) -> int:
    with server.client() as client:
        headers = {"Authorization": f"Bearer {token}"}
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
        return client.post("/v1/chat/completions", json=body, headers=headers).status_code


def readiness(server: ServerProcess) -> int:
    with server.client() as client:
        return client.get("/ready").status_code


def new_token(manage: ManagementClient, project_id: str) -> tuple[str, str]:
    made = manage.create_token({"project_id": project_id, "duration_minutes": 60})
    return made.id, made.token


def counted(manage: ManagementClient, total: int) -> dict[str, int] | None:
    """What each token was used for, once it comes to this in all."""
    counts = {token.id: token.request_count for token in manage.list_tokens()}
    return counts if sum(counts.values()) == total else None


def test_server_on_postgresql_outlives_it(
    launch: Launch, own_postgres_server: PostgresServer, url: DatabaseUrl
) -> None:
    server = launch(arguments=["--workers", "2"], environ={"DATABASE_URL": url.reveal()})
    server.start()
    assert not (server.home.path / "llm-proxy.db").exists()
    with server.manage() as manage:
        keys = {"openai": "sk-upstream-0123456789"}
        project = manage.create_project({"name": "one", "api_keys": keys})
        revoked_id, revoked = new_token(manage, project.id)
        _, kept = new_token(manage, project.id)
        assert [status(server, token) for token in [revoked, kept] * 4] == [200] * 8
        manage.revoke_token(revoked_id)
        assert [status(server, revoked) for _ in range(4)] == [401] * 4

        assert [status(server, kept) for _ in range(16)] == [200] * 16
        own_postgres_server.stop()
        assert eventually(lambda: readiness(server) == 503)
        begun = time.monotonic()
        # Whichever worker gets it: both have seen the token.
        assert [status(server, kept) for _ in range(6)] == [200] * 6
        assert time.monotonic() - begun < 5

        own_postgres_server.start()
        assert eventually(lambda: readiness(server) == 200)
        _, later = new_token(manage, project.id)
        assert status(server, later) == 200
        assert status(server, revoked) == 401
        counts = eventually(lambda: counted(manage, 24 + 6 + 1))
        assert counts[revoked_id] == 4
    assert server.stop() == 0
    assert PASSWORD not in server.stderr


def test_password_of_the_database_is_in_no_command_line_nor_log(
    launch: Launch, url: DatabaseUrl
) -> None:
    server = launch(environ={"DATABASE_URL": url.reveal()})
    server.start()
    for pid in server.worker_pids:
        for name in ("cmdline", "environ"):
            assert PASSWORD.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
    assert PASSWORD not in server.home.state_file.read_text()
    assert server.stop() == 0
    assert PASSWORD not in server.stderr
