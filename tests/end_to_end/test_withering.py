"""Tokens that end in each of their ways, over a whole server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from llm_proxy.manage.client import ManagementClient
from llm_proxy.manage.objects import NewToken, Token
from tests.end_to_end.conftest import Launch
from tests.end_to_end.raw_upstream import RawUpstream, connect
from tests.end_to_end.server_process import ServerProcess
from tests.end_to_end.waiting import eventually

SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def ask(server: ServerProcess) -> Iterator[Callable[..., str]]:
    with httpx.Client(base_url=server.url) as http:

        def ask(token: NewToken, *, path: str = "/v1/chat/completions", **changes: Any) -> str:
            """`ok`, or the code of the refusal."""
            headers = {"Authorization": f"Bearer {token.token}"}
            answer = http.post(path, json={**BODY, **changes}, headers=headers)
            return "ok" if answer.is_success else str(answer.json()["error"]["code"])

        yield ask


def test_a_scope_is_obeyed_when_the_change_returns(
    ask: Callable[..., str], manage: ManagementClient, new_token: Callable[..., NewToken]
) -> None:
    token = new_token(scope={"models": ["gpt-4*"]})
    assert ask(token) == "ok"
    assert ask(token, model="o3") == "insufficient_scope"
    for scope, code in [
        ({"models": []}, "ok"),
        ({"endpoints": ["/v1/models"]}, "insufficient_scope"),
        ({"endpoints": ["/v1/chat/*"], "apis": ["anthropic"]}, "insufficient_scope"),
        (None, "ok"),
        ({"networks": ["192.0.2.0/24"]}, "client_not_allowed"),
        ({"networks": ["192.0.2.0/24", "127.0.0.0/8"]}, "ok"),
    ]:
        manage.update_token(token.id, {"scope": scope})
        assert ask(token) == code, scope


def test_times_are_obeyed_when_the_change_returns(
    ask: Callable[..., str], manage: ManagementClient, new_token: Callable[..., NewToken]
) -> None:
    token = new_token()
    now = datetime.now(UTC)
    steps: list[tuple[dict[str, Any], str]] = [
        ({"not_before": now + timedelta(minutes=1)}, "token_not_yet_valid"),
        ({"not_before": now - timedelta(minutes=1)}, "ok"),
        ({"expires_at": now}, "token_expired"),
        ({"expires_at": None, "idle_timeout_seconds": 60}, "ok"),
        ({"is_active": False}, "token_revoked"),
        ({"is_active": True}, "ok"),
    ]
    for fields, code in steps:
        manage.update_token(token.id, fields)
        assert ask(token) == code, fields


def test_expired_tokens_are_cleaned_up_and_still_say_so(launch: Launch) -> None:
    server = launch(environ={"TOKEN_CLEANUP_INTERVAL": "100ms"})
    server.start()
    with server.manage() as manage, httpx.Client(base_url=server.url) as http:
        project = manage.create_project({"name": "p", "api_key": "sk-upstream"})
        token = manage.create_token({"project_id": project.id, "duration_minutes": 60})
        end = datetime.now(UTC)
        manage.update_token(token.id, {"expires_at": end})

        def cleaned() -> Token | None:
            found = manage.get_token(token.id)
            return None if found.is_active else found

        found = eventually(cleaned)
        assert found.deactivated_at == found.expires_at == end
        assert found.state(datetime.now(UTC)) == "expired"
        headers = {"Authorization": f"Bearer {token.token}"}
        answer = http.post("/v1/chat/completions", json=BODY, headers=headers)
        assert answer.json()["error"]["code"] == "token_expired"
        records = manage.audit_records({"token_id": token.id}, most=9)
        assert "token.expire" in [record.action for record in records]


@pytest.mark.parametrize("whole_project", [False, True])
def test_what_runs_ends_at_once_on_demand(
    launch: Launch, raw_upstream: RawUpstream, whole_project: bool
) -> None:
    server = launch(upstream=raw_upstream.address)
    server.start()
    with server.manage() as manage:
        project = manage.create_project({"name": "p", "api_key": "sk-upstream"})
        new = {"project_id": project.id, "duration_minutes": 60}
        token = manage.create_token(new)
        head = f"GET /v1/x HTTP/1.1\r\nHost: p\r\nAuthorization: Bearer {token.token}\r\n\r\n"
        with connect(server.address) as client:
            client.send(head.encode())
            with raw_upstream.accept() as peer:
                peer.read_message()
                peer.send(SSE + b"9\r\ndata: 1\n\n\r\n")
                client.read_until(b"data: 1\n\n\r\n")
                manage.revoke_token(token.id)
                peer.send(b"9\r\ndata: 2\n\n\r\n")
                client.read_until(b"data: 2\n\n\r\n")  # a mere revocation lets it run
                if whole_project:
                    manage.revoke_project_tokens(project.id, cancel_running=True)
                else:
                    manage.revoke_token(token.id, cancel_running=True)
                rest = client.read_rest()
                assert b'"code":"token_revoked"' in rest
                assert not rest.endswith(b"0\r\n\r\n")
                assert peer.read_rest() == b""
