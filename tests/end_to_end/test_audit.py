"""The audit log of real servers: their life, what they refuse, and what a crash leaves."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from llm_proxy.audit import AuditRecord, decode_record
from llm_proxy.audit_chain import verify_files
from llm_proxy.errors import LLMProxyError
from llm_proxy.manage.client import ManagementClient
from llm_proxy.secrets import new_token
from tests.end_to_end.conftest import Launch
from tests.end_to_end.server_process import ServerProcess, run_command
from tests.end_to_end.waiting import eventually


def log_of(server: ServerProcess) -> Path:
    return server.home.path / "audit.jsonl"


def records_of(server: ServerProcess) -> list[AuditRecord]:
    return [decode_record(line) for line in log_of(server).read_bytes().splitlines()]


def actions_of(server: ServerProcess) -> list[str]:
    return [record.action for record in records_of(server)]


def verified(server: ServerProcess) -> dict[str, Any]:
    done = run_command(server.environ, "manage", "audit", "verify", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_a_servers_life_is_recorded(launch: Launch) -> None:
    server = launch()
    server.start()
    server.add_token()
    first, *changes = records_of(server)
    assert first.action == "server.start"
    assert first.details["pid"] == server.process.pid
    assert [(r.action, r.client_ip, r.outcome) for r in changes] == [
        ("project.create", "127.0.0.1", "success"),
        ("token.create", "127.0.0.1", "success"),
    ]
    assert (changes[0].user_agent or "").startswith("llm-proxy/")
    run_command(server.environ, "server", "reload")
    server.providers_file.write_text("apis: nonsense")
    run_command(server.environ, "server", "reload")
    server.stop()
    good, bad, stop = records_of(server)[3:]
    assert (good.action, good.outcome) == ("config.reload", "success")
    assert (bad.action, bad.outcome) == ("config.reload", "error")
    assert "apis" in (bad.reason or "")
    assert stop.action == "server.stop"
    assert verify_files([log_of(server)]).is_sound
    assert log_of(server).stat().st_mode & 0o777 == 0o600


def test_what_setup_made_is_recorded_too(launch: Launch) -> None:
    server = launch()
    arguments = ("--openai-key", "sk-upstream-0123456789", "--non-interactive")
    done = run_command(server.environ, "setup", *arguments)
    assert done.returncode == 0, done.stderr
    server.start()
    made = [(record.action, record.actor) for record in records_of(server)]
    assert made[:2] == [("project.create", "cli"), ("token.create", "cli")]
    assert verified(server)["sound"]


def test_killed_in_the_middle_of_changes_it_lost_no_acknowledged_one(launch: Launch) -> None:
    server = launch()
    server.start()
    server.add_token()
    with server.manage() as manage:
        project_id = manage.list_projects()[0].id
    acknowledged: list[str] = []

    def create(manage: ManagementClient) -> None:
        with manage:
            try:
                while True:
                    fields = {"project_id": project_id, "duration_minutes": 5}
                    acknowledged.append(manage.create_token(fields).id)
            except LLMProxyError:
                return

    threads = [threading.Thread(target=create, args=[server.manage()]) for _ in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(acknowledged) >= 40)
    server.process.kill()
    for thread in threads:
        thread.join()
    server.process.wait()
    server.wait_until_all_gone()
    # What was acknowledged is in the file already, and a line may be torn after it.
    in_file = {record.token_id for record in _whole_records(server)}
    assert set(acknowledged) <= in_file
    with log_of(server).open("ab") as file:
        file.write(b'{"action":"token.cre')
    server.start()
    assert verified(server)["sound"]
    created = [r.token_id for r in records_of(server) if r.action == "token.create"]
    assert len(created) == len(set(created))
    with server.manage() as manage:
        assert {token.id for token in manage.list_tokens()} == set(created)
    assert actions_of(server).count("server.lost") == 1
    assert "audit.repair" in actions_of(server)


def _whole_records(server: ServerProcess) -> list[AuditRecord]:
    lines = log_of(server).read_bytes().split(b"\n")[:-1]
    return [decode_record(line) for line in lines]


def test_thousands_of_refusals_are_a_few_records(launch: Launch) -> None:
    server = launch()
    server.start()
    token = server.add_token()
    with server.manage() as manage:
        manage.revoke_token(manage.list_tokens()[0].id)
    strangers = [new_token().reveal() for _ in range(50)]
    answers: Counter[str] = Counter()
    with server.client() as client:
        for number in range(1000):
            credential = token if number % 2 else strangers[number % 50]
            headers = {"Authorization": f"Bearer {credential}"}
            answer = client.get("/v1/models", headers=headers)
            if answer.status_code < 500:
                answers[answer.json()["error"]["code"]] += 1
    server.stop()
    refused = [record for record in records_of(server) if record.action == "proxy.refused"]
    counts: Counter[str] = Counter()
    for record in refused:
        counts[record.reason or ""] += record.details["count"]
    assert counts == answers
    assert counts["token_revoked"] > 250
    assert len(refused) <= 100
    revoked = next(record for record in refused if record.reason == "token_revoked")
    assert revoked.token_id is not None
    assert revoked.project_id is not None
    assert revoked.client_ip == "127.0.0.1"
    assert token not in log_of(server).read_text()


def test_guesses_at_the_management_token_are_a_few_records(launch: Launch) -> None:
    server = launch()
    server.start()
    wrong = {"Authorization": "Bearer wrong-management-token"}
    with server.client() as client:
        for _ in range(200):
            answer = client.get("/manage/projects", headers=wrong)
            assert answer.status_code == 401
    server.stop()
    denied = [record for record in records_of(server) if record.action == "auth.failed"]
    assert len(denied) == 11
    assert denied[-1].details == {"count": 190}


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_unwritable_file_is_told_before_anything_starts(launch: Launch, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    server = launch(environ={"AUDIT_LOG_FILE": str(locked / "audit.jsonl")})
    done = run_command(server.environ, "server", "start", *server.arguments)
    assert done.returncode == 1
    assert "AUDIT_LOG_FILE" in done.stderr


def test_full_disk_stops_changes_but_not_the_proxy(launch: Launch) -> None:
    """The file's place is taken, as far as the server can tell."""
    server = launch()
    server.start()
    token = server.add_token()
    log_of(server).rename(server.home.path / "moved")
    log_of(server).mkdir()
    with server.client(server.management_token.reveal()) as client:
        body = {"name": "two", "api_key": "sk-upstream-0123456789"}
        assert client.post("/manage/projects", json=body).status_code == 201
        refused = client.post("/manage/projects", json={**body, "name": "three"})
        assert refused.json()["error"]["code"] == "audit_unavailable"
        assert client.get("/health").json()["status"] == "degraded"
        assert client.get("/ready").status_code == 200
        assert _ask(server, token) == 200
        log_of(server).rmdir()
        (server.home.path / "moved").rename(log_of(server))
        assert client.post("/manage/projects", json={**body, "name": "four"}).status_code == 201
    assert verified(server)["sound"]


def _ask(server: ServerProcess, token: str) -> int:
    with server.client(token) as client:
        answer: httpx.Response = client.get("/v1/models")
    return answer.status_code


def test_two_servers_on_one_database_keep_a_chain_each(
    launch: Launch, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres_url").reveal()
    key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    environ = {"DATABASE_URL": url, "ENCRYPTION_KEY": key, "MANAGEMENT_TOKEN": "one-for-both-1"}
    servers = [launch(environ=environ) for _ in range(2)]
    for number, server in enumerate(servers):
        server.start()
        with server.manage() as manage:
            for count in range(3):
                fields = {"name": f"{number}-{count}", "api_key": "sk-upstream-0123456789"}
                manage.create_project(fields)
    for server in servers:
        report = verified(server)
        assert report["sound"]
        assert len(report["chains"]) == 3  # both in the database, and the file of this one
        assert actions_of(server).count("project.create") == 3
    with servers[0].client("one-for-both-1") as client:
        found = client.get("/manage/audit", params={"action": "project.create"}).json()
        since = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + 3600))
        later = client.get("/manage/audit", params={"start_time": since}).json()
    assert len({record["chain"] for record in found}) == 2
    assert (len(found), later) == (6, [])
    assert [server.stop() for server in servers] == [0, 0]
