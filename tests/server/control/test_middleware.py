from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from llm_proxy.server.channel import Change
from llm_proxy.server.control.app import create_app
from llm_proxy.server.control.context import ControlContext
from llm_proxy.server.control.middleware import RequestEnvelope

pytestmark = pytest.mark.anyio

MANAGEMENT_TOKEN = "management-token-for-tests"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic bWFuYWdlbWVudC10b2tlbi1mb3ItdGVzdHM=",
        MANAGEMENT_TOKEN,
        "Bearer wrong",
        f"Bearer {MANAGEMENT_TOKEN}x",
        f"Bearer {MANAGEMENT_TOKEN[:-1]}",
        "Bearer é",
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/manage/projects"),
        ("POST", "/manage/tokens"),
        ("GET", "/manage"),
        ("GET", "/%6danage/nothing"),
        ("OPTIONS", "/manage/projects"),
    ],
)
async def test_without_the_management_token_nothing_is_told(
    client: httpx.AsyncClient, method: str, path: str, header: str | None
) -> None:
    del client.headers["Authorization"]
    headers = {} if header is None else {b"Authorization": header.encode()}
    answer = await client.request(method, path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert answer.json()["error"]["code"] == "invalid_management_token"
    assert answer.json()["error"]["type"] == "authentication_error"
    assert "wrong" not in answer.text
    assert MANAGEMENT_TOKEN not in answer.text


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_may_be_written_in_any_case(
    client: httpx.AsyncClient, scheme: str
) -> None:
    headers = {"Authorization": f"{scheme} {MANAGEMENT_TOKEN}"}
    assert (await client.get("/manage/projects", headers=headers)).status_code == 200


async def test_a_path_that_only_begins_alike_is_not_protected(client: httpx.AsyncClient) -> None:
    del client.headers["Authorization"]
    assert (await client.get("/management")).status_code == 404


async def test_a_sane_request_id_is_used(client: httpx.AsyncClient) -> None:
    answer = await client.get("/manage/tokens/x", headers={"X-Request-ID": "req_1-2.3"})
    assert answer.headers["X-Request-ID"] == "req_1-2.3"
    assert answer.json()["request_id"] == "req_1-2.3"


@pytest.mark.parametrize("sent", [None, "", "a b", "x" * 129, "ä", "<script>"])
async def test_any_other_is_replaced(client: httpx.AsyncClient, sent: str | None) -> None:
    headers = {} if sent is None else {b"X-Request-ID": sent.encode()}
    first = await client.get("/live", headers=headers)
    second = await client.get("/live", headers=headers)
    assert first.headers["X-Request-ID"] != sent
    assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]


async def test_the_gateways_id_wins_over_one_of_the_client_that_is_not_sane(
    client: httpx.AsyncClient,
) -> None:
    headers = [("X-Request-ID", "not sane"), ("X-Request-ID", "from-the-gateway")]
    answer = await client.get("/manage/tokens/x", headers=headers)
    assert answer.json()["request_id"] == "from-the-gateway"


async def test_what_nobody_foresaw_is_logged_and_told_without_detail(
    context: ControlContext, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Any:
        raise RuntimeError("the inner reason")

    app = create_app(replace(context, health=fail))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://control"
    ) as client:
        answer = await client.get("/health", headers={"X-Request-ID": "find-me"})
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert answer.json()["request_id"] == "find-me"
    assert "inner reason" not in answer.text
    record = next(record for record in caplog.records if record.levelno == logging.ERROR)
    assert "find-me" in record.getMessage()
    assert record.exc_info is not None


async def test_a_store_that_is_gone_is_503(
    client: httpx.AsyncClient, context: ControlContext
) -> None:
    context.store.close()
    answer = await client.get("/manage/projects")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "store_unavailable"
    assert answer.headers["Retry-After"] == "1"


async def test_a_publication_that_fails_is_an_error_not_a_success(
    context: ControlContext, caplog: pytest.LogCaptureFixture
) -> None:
    async def publish(changes: list[Change]) -> None:
        raise RuntimeError("workers are out of reach")

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(replace(context, publish=publish))),
        base_url="http://control",
        headers={"Authorization": f"Bearer {MANAGEMENT_TOKEN}"},
    ) as client:
        answer = await client.post("/manage/projects", json={"name": "n", "api_key": "sk-key"})
    assert answer.status_code == 500


async def test_an_answer_that_has_begun_is_not_answered_again() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("too late")

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    with pytest.raises(RuntimeError, match="too late"):
        await RequestEnvelope(broken)(scope, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start"]


async def test_a_client_that_leaves_while_sending_gets_no_answer(context: ControlContext) -> None:
    messages: list[Message] = [
        {"type": "http.request", "body": b'{"name":', "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/manage/projects",
        "raw_path": b"/manage/projects",
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {MANAGEMENT_TOKEN}".encode())],
    }
    await create_app(context)(scope, receive, send)
    assert sent == []


async def test_what_is_not_http_passes(context: ControlContext) -> None:
    app = create_app(context)
    async with app.router.lifespan_context(app):
        pass
    seen: list[str] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Any) -> Any:
        raise AssertionError("not called")

    await RequestEnvelope(inner)({"type": "lifespan"}, nothing, nothing)
    assert seen == ["lifespan"]
