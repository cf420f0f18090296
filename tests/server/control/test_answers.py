from __future__ import annotations

import httpx
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from llm_proxy.errors import Conflict, Refusal, StoreUnavailable
from llm_proxy.server.control.answers import (
    invalid,
    json_answer,
    missing,
    nothing,
    refusal_answer,
    refusal_for,
    shortened,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def request_() -> Request:
    request = Request(
        {
            "type": "http",
            "method": "GET",
            "path": "/manage/x",
            "headers": [],
            "server": ("control", 80),
            "scheme": "http",
            "query_string": b"",
        }
    )
    request.state.request_id = "r-1"
    return request


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (invalid("name", "is odd"), 400, "invalid_request"),
        (missing("token"), 404, "not_found"),
        (Conflict("taken"), 409, "conflict"),
        (StoreUnavailable("locked"), 503, "store_unavailable"),
        (HTTPException(404), 404, "not_found"),
        (HTTPException(405, headers={"Allow": "GET"}), 405, "method_not_allowed"),
        (HTTPException(418, "short and stout"), 400, "invalid_request"),
        (ZeroDivisionError(), 500, "internal_error"),
    ],
)
def test_each_failure_has_its_answer(
    request_: Request, failure: Exception, status: int, code: str
) -> None:
    refusal = refusal_for(failure, request_)
    assert (refusal.status_code, refusal.code) == (status, code)
    answer = refusal_answer(refusal, request_)
    assert answer.status_code == status
    assert answer.headers["Cache-Control"] == "no-store"
    assert b'"request_id":"r-1"' in bytes(answer.body)


def test_a_field_is_named_for_programs_too() -> None:
    refusal = invalid("name", "is odd")
    assert (refusal.message, refusal.details) == ("name is odd", {"field": "name"})


def test_headers_of_a_refusal_are_sent(request_: Request) -> None:
    refusal = Refusal("conflict", "no", headers={"Retry-After": "9"})
    assert refusal_answer(refusal, request_).headers["Retry-After"] == "9"


def test_answers_are_kept_by_no_cache() -> None:
    answer = json_answer({"a": 1}, status=201, headers={"X-Total-Count": "1"})
    assert (answer.status_code, answer.body) == (201, b'{"a":1}')
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Total-Count"] == "1"
    assert answer.headers["Cache-Control"] == nothing().headers["Cache-Control"] == "no-store"


def test_long_values_are_cut() -> None:
    assert shortened("x" * 60) == "x" * 60
    assert shortened("x" * 61) == "x" * 60 + "…"


async def test_times_are_rfc_3339_in_utc(client: httpx.AsyncClient) -> None:
    answer = await client.get("/health")
    assert answer.json()["timestamp"] == "2030-01-02T03:04:05.678901Z"
