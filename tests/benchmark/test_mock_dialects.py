from __future__ import annotations

import json

import pytest

from llm_proxy.benchmark.mock_answer import Refused
from llm_proxy.benchmark.mock_dialects import ANTHROPIC, OPENAI, check_key, dialect_of
from llm_proxy.benchmark.mock_request import Request
from llm_proxy.secrets import Secret

VERSION = (b"anthropic-version", b"2023-06-01")


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/files/x", b"/v1/models", b"/"])
def test_paths_are_openai_s_unless_something_says_otherwise(path: bytes) -> None:
    assert dialect_of(Request("GET", path, [])) is OPENAI


def test_messages_are_anthropic_s() -> None:
    assert dialect_of(Request("POST", b"/v1/messages/count_tokens", [])) is ANTHROPIC


@pytest.mark.parametrize("path", [b"/v1/models", b"/nowhere"])
def test_the_version_header_decides_where_the_path_does_not(path: bytes) -> None:
    assert dialect_of(Request("GET", path, [VERSION])) is ANTHROPIC
    assert dialect_of(Request("POST", b"/v1/chat/completions", [VERSION])) is OPENAI


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, "invalid_request_error", None),
        (401, "invalid_request_error", "invalid_api_key"),
        (429, "requests", "rate_limit_exceeded"),
        (503, "server_error", None),
    ],
)
def test_openai_errors_have_openai_s_shape(status: int, kind: str, code: str | None) -> None:
    body = json.loads(OPENAI.error(Refused(status, "why", param="model"), "1"))
    assert body == {"error": {"message": "why", "type": kind, "param": "model", "code": code}}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (404, "not_found_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (529, "overloaded_error"),
    ],
)
def test_anthropic_errors_have_anthropic_s_shape(status: int, kind: str) -> None:
    body = json.loads(ANTHROPIC.error(Refused(status, "why"), "1"))
    error = {"type": kind, "message": "why"}
    assert body == {"type": "error", "error": error, "request_id": "req_1"}


def test_each_api_takes_its_key_from_its_own_header() -> None:
    bearer = Request("GET", b"/", [(b"Authorization", b"bearer one")])
    header = Request("GET", b"/", [(b"X-Api-Key", b"one")])
    check_key(bearer, OPENAI, Secret("one"))
    check_key(bearer, ANTHROPIC, Secret("one"))
    check_key(header, ANTHROPIC, Secret("one"))
    with pytest.raises(Refused, match="Authorization: Bearer"):
        check_key(header, OPENAI, None)


def test_a_missing_key_is_401_even_where_any_will_do() -> None:
    basic = Request("GET", b"/", [(b"Authorization", b"Basic b25l")])
    for dialect in (OPENAI, ANTHROPIC):
        with pytest.raises(Refused, match="didn't provide an API key") as raised:
            check_key(basic, dialect, None)
        assert raised.value.status == 401


def test_another_key_than_the_one_wanted_is_401_and_not_repeated() -> None:
    request = Request("GET", b"/", [(b"Authorization", b"Bearer sk-canary")])
    check_key(request, OPENAI, None)
    with pytest.raises(Refused, match="isn't the one") as raised:
        check_key(request, OPENAI, Secret("sk-other"))
    assert "canary" not in raised.value.message
