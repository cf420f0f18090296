"""Every action leaves exactly one record, durable before its answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.types import Message

from llm_proxy.audit import AuditRecord
from llm_proxy.server.channel import Change
from llm_proxy.server.control.app import create_app
from llm_proxy.store.audit import records_after
from tests.server.control.audited import Audited

pytestmark = pytest.mark.anyio

KEY = "sk-upstream-0123456789abcd"
MANAGEMENT_TOKEN = "management-token-for-tests"


async def project(audited: Audited) -> str:
    answer = await audited.client.post("/manage/projects", json={"name": "demo", "api_key": KEY})
    assert answer.status_code == 201
    return str(answer.json()["id"])


async def token(audited: Audited, project_id: str) -> str:
    body = {"project_id": project_id, "duration_minutes": 5, "name": "ci"}
    answer = await audited.client.post("/manage/tokens", json=body)
    assert answer.status_code == 201
    return str(answer.json()["id"])


async def test_a_success_says_who_did_what_to_what(audited: Audited) -> None:
    project_id = await project(audited)
    headers = {"X-Request-ID": "req-1", "User-Agent": "curl/8"}
    body = {"project_id": project_id, "duration_minutes": 5, "name": "ci"}
    answer = await audited.client.post("/manage/tokens", json=body, headers=headers)
    record = audited.last
    assert (record.action, record.outcome, record.actor) == (
        "token.create",
        "success",
        "management_api",
    )
    assert (record.project_id, record.token_id) == (project_id, answer.json()["id"])
    assert (record.method, record.path) == ("POST", "/manage/tokens")
    assert (record.request_id, record.user_agent, record.client_ip) == (
        "req-1",
        "curl/8",
        "127.0.0.1",
    )
    assert record.details == {"fields": ["duration_minutes", "name", "project_id"]}


async def test_a_deletion_tells_which_flags_it_had(audited: Audited) -> None:
    project_id = await project(audited)
    token_id = await token(audited, project_id)
    await audited.client.delete(f"/manage/tokens/{token_id}?cancel_running=true")
    assert audited.last.details == {"fields": ["cancel_running"]}
    await token(audited, project_id)
    await audited.client.delete(f"/manage/projects/{project_id}?cancel_running=1&force=false")
    assert audited.last.outcome == "failure"
    assert audited.last.details == {"fields": ["cancel_running"]}
    await audited.client.delete(f"/manage/projects/{project_id}?cancel_running=1&force=true")
    assert audited.last.outcome == "success"
    assert audited.last.details == {"fields": ["cancel_running", "force"]}


async def test_each_action_leaves_one_record(audited: Audited) -> None:
    project_id = await project(audited)
    token_id = await token(audited, project_id)
    steps: list[tuple[str, str, dict[str, Any] | None, str]] = [
        ("PATCH", f"/manage/tokens/{token_id}", {"name": "x"}, "token.update"),
        ("POST", f"/manage/tokens/{token_id}/rotate", {}, "token.rotate"),
        ("DELETE", f"/manage/tokens/{token_id}", None, "token.revoke"),
        ("DELETE", f"/manage/tokens/{token_id}", None, "token.revoke"),
        ("POST", f"/manage/projects/{project_id}/tokens/revoke", {}, "token.revoke_batch"),
        ("PUT", f"/manage/projects/{project_id}", {"name": "new"}, "project.update"),
        ("PUT", f"/manage/projects/{project_id}", {}, "project.update"),
        ("DELETE", f"/manage/projects/{project_id}", None, "project.delete"),
        ("GET", "/manage/audit", None, "audit.list"),
        ("GET", "/manage/audit/verify", None, "audit.verify"),
    ]
    for method, path, body, action in steps:
        before = len(audited.records)
        answer = await audited.client.request(method, path, json=body)
        assert answer.is_success, answer.text
        assert len(audited.records) == before + 1
        assert (audited.last.action, audited.last.outcome) == (action, "success")
    assert audited.records[2].project_id == project_id


async def test_reads_leave_none(audited: Audited) -> None:
    for path in ("/manage/projects", "/manage/tokens", "/health", "/manage/projects/none"):
        await audited.client.get(path)
    assert audited.records == []


@pytest.mark.parametrize(
    ("method", "path", "body", "outcome", "reason", "details"),
    [
        ("POST", "/manage/projects", {"name": ""}, "failure", "invalid_request", ["name"]),
        ("POST", "/manage/projects", {"api_key": [KEY]}, "failure", "invalid_request", ["api_key"]),
        ("PATCH", "/manage/tokens/none", {"name": "x"}, "failure", "not_found", None),
        ("DELETE", "/manage/projects/none", None, "failure", "not_found", None),
        ("POST", "/manage/nothing", {}, "failure", "not_found", None),
        ("DELETE", "/manage/projects", None, "failure", "method_not_allowed", None),
        ("GET", "/manage/audit/none", None, "failure", "not_found", None),
        ("GET", "/manage/audit?limit=x", None, "failure", "invalid_request", ["limit"]),
    ],
)
async def test_each_failure_leaves_one_record_without_what_was_sent(
    audited: Audited,
    method: str,
    path: str,
    body: Any,
    outcome: str,
    reason: str,
    details: list[str] | None,
) -> None:
    answer = await audited.client.request(method, path, json=body)
    assert not answer.is_success
    (record,) = audited.records
    assert (record.outcome, record.reason) == (outcome, reason)
    if details is not None:
        assert record.details["field"] == details[0]
    assert KEY not in audited.path.read_text()


async def test_secrets_in_wrong_places_are_not_kept(audited: Audited) -> None:
    misplaced = "sk-ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
    await audited.client.post("/manage/projects", json={misplaced: 1})
    await audited.client.delete(f"/manage/tokens/{misplaced}")
    await audited.client.get(f"/manage/audit?{misplaced}=1")
    assert len(audited.records) == 3
    assert audited.records[1].path == "/manage/tokens/…"
    assert misplaced not in audited.path.read_text()


async def test_what_no_database_takes_is_replaced(audited: Audited) -> None:
    await audited.client.delete("/manage/tokens/a%00b")
    assert (audited.last.token_id, audited.last.path) == ("a�b", "/manage/tokens/a�b")
    assert (await audited.client.get("/manage/audit/%00")).status_code == 404


async def test_conflict_is_a_failure_and_a_forbidden_one_denied(audited: Audited) -> None:
    project_id = await project(audited)
    await audited.client.post("/manage/projects", json={"name": "demo", "api_key": KEY})
    assert (audited.last.outcome, audited.last.reason) == ("failure", "conflict")
    await audited.client.patch(f"/manage/projects/{project_id}", json={"is_active": False})
    body = {"project_id": project_id, "duration_minutes": 5}
    await audited.client.post("/manage/tokens", json=body)
    assert (audited.last.outcome, audited.last.reason) == ("denied", "project_inactive")


async def test_wrong_management_token_is_denied_also_for_reads(audited: Audited) -> None:
    wrong = {"Authorization": "Bearer a-wrong-token-0123456789"}
    answer = await audited.client.get("/manage/projects", headers=wrong)
    assert answer.status_code == 401
    (record,) = audited.records
    assert (record.action, record.outcome, record.reason) == (
        "auth.failed",
        "denied",
        "invalid_management_token",
    )
    assert (record.method, record.path) == ("GET", "/manage/projects")
    assert "a-wrong-token" not in audited.path.read_text()
    assert (await audited.client.get("/management", headers=wrong)).status_code == 404
    assert len(audited.records) == 1


async def test_no_secret_gets_into_the_log(audited: Audited) -> None:
    project_id = await project(audited)
    body = {"project_id": project_id, "duration_minutes": 5}
    made = (await audited.client.post("/manage/tokens", json=body)).json()
    rotated = await audited.client.post(f"/manage/tokens/{made['id']}/rotate")
    await audited.client.patch(f"/manage/projects/{project_id}", json={"api_key": KEY + "x"})
    text = audited.path.read_text()
    for secret in (KEY, made["token"], rotated.json()["token"], MANAGEMENT_TOKEN):
        assert secret not in text
    assert audited.last.details == {"fields": ["api_key"]}


async def test_record_shares_the_fate_of_the_change(audited: Audited) -> None:
    """A change that can't be told to the workers is made all the same."""

    async def publish(changes: list[Change]) -> None:
        raise RuntimeError("workers are out of reach")

    app = create_app(replace(audited.context, publish=publish))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://control",
        headers={"Authorization": f"Bearer {MANAGEMENT_TOKEN}"},
    ) as client:
        answer = await client.post("/manage/projects", json={"name": "n", "api_key": KEY})
    assert answer.status_code == 500
    (record,) = audited.records
    assert (record.action, record.outcome) == ("project.create", "success")


async def test_record_is_in_the_file_before_the_answer_begins(audited: Audited) -> None:
    app = create_app(audited.context)
    seen: list[list[AuditRecord]] = []
    messages: list[Message] = [
        {"type": "http.request", "body": b'{"name": "n", "api_key": "%b"}' % KEY.encode()}
    ]

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        seen.append(audited.records)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/manage/projects",
        "raw_path": b"/manage/projects",
        "query_string": b"",
        "client": None,
        "headers": [
            (b"authorization", f"Bearer {MANAGEMENT_TOKEN}".encode()),
            (b"x-forwarded-for", b"192.0.2.7"),
        ],
    }
    await app(scope, receive, send)
    assert [len(records) for records in seen] == [1, 1]
    assert seen[0][0].client_ip == "192.0.2.7"


async def test_over_tcp_the_peer_is_the_client_whatever_it_says(audited: Audited) -> None:
    headers = {"X-Forwarded-For": "192.0.2.7"}
    await audited.client.get("/manage/audit", headers=headers)
    assert audited.last.client_ip == "127.0.0.1"


async def test_nothing_changes_while_the_file_can_not_be_written(audited: Audited) -> None:
    project_id = await project(audited)
    audited.path.unlink()
    audited.path.mkdir()
    # It isn't known yet: this one is durable in the database, and the last.
    await token(audited, project_id)
    body = {"project_id": project_id, "duration_minutes": 5}
    answer = await audited.client.post("/manage/tokens", json=body)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "audit_unavailable"
    assert answer.headers["Retry-After"] == "5"
    assert len((await audited.client.get("/manage/tokens")).json()) == 1
    health = await audited.client.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "degraded")
    assert health.json()["checks"]["audit"] != "ok"
    audited.path.rmdir()
    await token(audited, project_id)
    stored = records_after(audited.context.store, "one", 0)
    assert [(record.action, record.outcome) for record in stored] == [
        ("project.create", "success"),
        ("token.create", "success"),
        ("token.create", "error"),
        ("token.create", "success"),
    ]
    assert (await audited.client.get("/health")).json()["checks"]["audit"] == "ok"


async def test_store_that_is_gone_is_told_as_such(audited: Audited) -> None:
    audited.context.store.close()
    for path in ("/manage/projects", "/manage/tokens"):
        body = {"name": "n", "api_key": KEY} if "projects" in path else {}
        answer = await audited.client.post(path, json=body)
        assert answer.json()["error"]["code"] == "store_unavailable"
    wrong = {"Authorization": "Bearer wrong"}
    assert (await audited.client.get("/manage/audit", headers=wrong)).status_code == 401


async def test_many_at_once_each_leave_one(audited: Audited) -> None:
    project_id = await project(audited)
    ids = await asyncio.gather(*(token(audited, project_id) for _ in range(50)))
    created = [record.token_id for record in audited.records if record.action == "token.create"]
    assert sorted(str(one) for one in created) == sorted(ids)
