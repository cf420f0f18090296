from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from llm_proxy.errors import Refusal
from llm_proxy.server.control.requests import BODY_LIMIT, Query

pytestmark = pytest.mark.anyio


async def post(client: httpx.AsyncClient, content: bytes) -> httpx.Response:
    return await client.post("/manage/tokens", content=content)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is empty; it must be a JSON object"),
        (b"{", "isn't a valid JSON document"),
        (b"\xff", "isn't a valid JSON document"),
        (b'{"name": "\xff"}', "isn't a valid JSON document"),
        (b'{"name": NaN}', "isn't a valid JSON document"),
        (b"[" * 100_000, "isn't a valid JSON document"),
        (b'{"max_requests": 1e999}', "isn't a valid JSON document"),
        (b"[]", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b"null", "must be a JSON object"),
    ],
)
async def test_a_body_that_is_no_json_object_is_400(
    client: httpx.AsyncClient, body: bytes, message: str
) -> None:
    answer = await post(client, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_request"
    assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        (b'{"projectId": "x"}', "projectId", "projectId is not a known field here; remove it"),
        (b'{"duration_minutes": 5}', "project_id", "project_id is required"),
        (
            b'{"project_id": "x", "scope": {"model": []}}',
            "scope.model",
            "scope.model is not a known field here; remove it",
        ),
        (
            b'{"project_id": "x", "scope": {"models": "o3"}}',
            "scope.models",
            'scope.models is wrong: expected array, got str: "o3"',
        ),
        (
            b'{"project_id": "x", "scope": {"models": [5]}}',
            "scope.models",
            "scope.models is wrong: expected str, got int: [5]",
        ),
        (
            b'{"project_id": 5, "duration_minutes": 5}',
            "project_id",
            "project_id is wrong: expected str, got int: 5",
        ),
        (
            b'{"project_id": "x", "duration_minutes": "60"}',
            "duration_minutes",
            'duration_minutes is wrong: expected int, got str: "60"',
        ),
        (
            b'{"project_id": "x", "duration_minutes": true}',
            "duration_minutes",
            "duration_minutes is wrong: expected int, got bool: true",
        ),
        (
            b'{"project_id": "x", "duration_minutes": 5, "max_requests": 1.5}',
            "max_requests",
            "max_requests is wrong: expected int | null, got float: 1.5",
        ),
        (
            b'{"project_id": "x", "expires_at": "never"}',
            "expires_at",
            'expires_at must be a time like 2030-01-31T12:00:00Z, not "never"',
        ),
        (
            b'{"project_id": null, "duration_minutes": 5}',
            "project_id",
            "project_id is wrong: expected str, got null: null",
        ),
    ],
)
async def test_a_wrong_field_is_named_with_its_value(
    client: httpx.AsyncClient, body: bytes, field: str, message: str
) -> None:
    error = (await post(client, body)).json()["error"]
    assert (error["message"], error["details"]) == (message, {"field": field})


async def test_a_wrong_value_of_a_secret_field_is_not_repeated(client: httpx.AsyncClient) -> None:
    for fields in ({"api_key": ["sk-canary"]}, {"api_keys": {"openai": ["sk-canary"]}}):
        answer = await client.post("/manage/projects", json={"name": "n", **fields})
        assert answer.status_code == 400
        assert answer.json()["error"]["details"]["field"] in ("api_key", "api_keys")
        assert "canary" not in answer.text


@pytest.mark.parametrize("is_announced", [True, False])
async def test_a_body_over_the_limit_is_413(client: httpx.AsyncClient, is_announced: bool) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while read < 10 * BODY_LIMIT:
            read += 65536
            yield b" " * 65536

    content = b" " * (BODY_LIMIT + 1) if is_announced else endless()
    answer = await client.post("/manage/tokens", content=content)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"
    assert read <= BODY_LIMIT + 65536


async def test_no_more_than_the_limit_is_read(client: httpx.AsyncClient) -> None:
    body = b'{"name": "n", "api_key": "sk-key"}'
    answer = await client.post("/manage/projects", content=body.ljust(BODY_LIMIT))
    assert answer.status_code == 201


def request_for(query: str) -> Request:
    return Request(
        {
            "type": "http",
            "method": "GET",
            "path": "/manage/tokens",
            "headers": [(b"host", b"x")],
            "query_string": query.encode(),
        }
    )


KNOWN = ("limit", "cursor", "active_only", "project_id")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=", "limit"),
        ("limit=ten", "limit"),
        ("limit=%C2%B2", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("limit=1&limit=2", "limit"),
        ("cursor=%FF", "cursor"),
        ("cursor=a", "cursor"),
        ("cursor=_w==", "cursor"),
        ("cursor=", "cursor"),
        ("cursor=!!", "cursor"),
        ("cursor=YWJj!", "cursor"),
        ("active_only=maybe", "active_only"),
        ("projectId=1", "projectId"),
    ],
)
def test_a_wrong_parameter_is_named(text: str, field: str) -> None:
    with pytest.raises(Refusal) as caught:
        query = Query(request_for(text), known=KNOWN)
        _ = query.limit, query.after, query.flag("active_only")
    assert caught.value.code == "invalid_request"
    assert caught.value.details == {"field": field}


def test_parameters_have_defaults() -> None:
    query = Query(request_for(""), known=KNOWN)
    assert (query.limit, query.after, query.text("project_id")) == (100, None, None)
    assert not query.flag("active_only")
    assert Query(request_for("active_only=1"), known=KNOWN).flag("active_only")
    assert not Query(request_for("active_only=False"), known=KNOWN).flag("active_only")


@given(st.text())
def test_any_cursor_is_either_understood_or_refused(cursor: str) -> None:
    request = request_for(str(httpx.QueryParams({"cursor": cursor})))
    try:
        query = Query(request, known=KNOWN)
        assert isinstance(query.after, str)
    except Refusal as refusal:
        assert refusal.details == {"field": "cursor"}


@given(st.text(st.characters(exclude_characters="\0"), min_size=1))
def test_a_position_survives_the_way_through_a_link(position: str) -> None:
    cursor = base64.urlsafe_b64encode(position.encode("utf-8", "surrogatepass")).decode()
    try:
        position.encode()
    except UnicodeEncodeError:
        return
    request = request_for(str(httpx.QueryParams({"cursor": cursor})))
    assert Query(request, known=KNOWN).after == position


async def test_the_next_link_keeps_the_filters(client: httpx.AsyncClient) -> None:
    for name in "abc":
        await client.post("/manage/projects", json={"name": name, "api_key": "sk-key"})
    answer = await client.get("/manage/projects?limit=2")
    assert answer.headers["X-Total-Count"] == "3"
    following = answer.links["next"]["url"]
    assert following.startswith("/manage/projects?limit=2&cursor=")
    answer = await client.get(following)
    assert [project["name"] for project in answer.json()] == ["c"]
    assert "Link" not in answer.headers
