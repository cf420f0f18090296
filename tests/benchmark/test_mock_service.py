from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.benchmark.mock_answer import Answer
from llm_proxy.benchmark.mock_options import MockOptions
from llm_proxy.benchmark.mock_request import Request
from llm_proxy.benchmark.mock_service import MOST_REMEMBERED, MockService
from llm_proxy.secrets import Secret

CHAT = b'{"model":"gpt-4o","messages":[{"role":"user","content":"Hello"}]}'
KEY = (b"Authorization", b"Bearer sk-any")


def _ask(
    service: MockService, body: bytes = CHAT, *headers: tuple[bytes, bytes], path: bytes = b""
) -> Answer:
    request = Request("POST", path or b"/v1/chat/completions", list(headers or [KEY]))
    service.prepare(request)
    request.feed(body)
    return service.answer(request)[0]


def _json(answer: Answer) -> Any:
    return json.loads(answer.body)


def test_the_same_request_gets_the_same_bytes_from_any_mock() -> None:
    first, again, other = (
        _ask(service) for service in [MockService(MockOptions())] * 2 + [MockService(MockOptions())]
    )
    assert first.body == again.body == other.body
    assert first.headers == again.headers == other.headers
    assert b"x-request-id: req_" in first.headers


def test_tokens_asked_for_are_not_answered_from_another_request_s_memory() -> None:
    service = MockService(MockOptions())
    plain = _json(_ask(service))
    short = _json(_ask(service, CHAT, KEY, (b"X-Mock-Tokens", b"2")))
    assert short["usage"]["completion_tokens"] == 2
    assert plain["usage"]["completion_tokens"] > 2


def test_more_answers_than_are_remembered_stay_right() -> None:
    service = MockService(MockOptions())
    answers: dict[int, bytes] = {}
    for _ in range(2):
        for number in range(MOST_REMEMBERED + 10):
            body = CHAT.replace(b"Hello", b"Hello %d" % number)
            answer = _ask(service, body).body
            assert answers.setdefault(number, answer) == answer


def test_a_status_asked_for_comes_in_the_dialect_with_its_retry_after() -> None:
    service = MockService(MockOptions())
    faults = ((b"X-Mock-Status", b"529"), (b"X-Mock-Retry-After", b"3"))
    openai = _ask(service, CHAT, *faults)
    assert openai.status == 529
    assert b"retry-after: 3\r\n" in openai.headers
    assert _json(openai)["error"]["type"] == "server_error"
    anthropic = _ask(service, CHAT, *faults, path=b"/v1/messages")
    assert _json(anthropic)["error"]["type"] == "overloaded_error"
    assert f"request-id: {_json(anthropic)['request_id']}".encode() in anthropic.headers


def test_a_status_that_is_no_error_comes_with_the_normal_answer() -> None:
    service = MockService(MockOptions())
    answer = _ask(service, CHAT, KEY, (b"X-Mock-Status", b"202"))
    assert answer.status == 202
    assert _json(answer)["object"] == "chat.completion"
    assert _ask(service).status == 200


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        (b"/v2/nowhere", b"", (), 404),
        (b"/v1/models", b"", (KEY,), 405),
        (b"/v1/chat/completions", b"{", ((b"X-Nothing", b""),), 401),
        (b"/v1/chat/completions", b"{", (KEY,), 400),
        (b"/v1/chat/completions", CHAT, (KEY, (b"X-Mock-Cut", b"x")), 400),
    ],
)
def test_errors_are_found_in_order(
    path: bytes, body: bytes, headers: tuple[tuple[bytes, bytes], ...], status: int
) -> None:
    answer = _ask(MockService(MockOptions()), body, *headers, path=path)
    assert answer.status == status
    assert _json(answer)["error"]["message"]


def test_only_the_given_key_is_accepted() -> None:
    service = MockService(MockOptions(api_key=Secret("sk-right")))
    assert _ask(service).status == 401
    assert _ask(service, CHAT, (b"Authorization", b"Bearer sk-right")).status == 200


def test_a_fault_does_not_hide_behind_an_error() -> None:
    request = Request("GET", b"/nowhere", [(b"X-Mock-Delay", b"2s")])
    answer, faults = MockService(MockOptions()).answer(request)
    assert (answer.status, faults.delay_s) == (404, 2.0)


def test_trouble_of_a_share_befalls_the_same_requests_of_any_mock() -> None:
    headers = (KEY, (b"X-Mock-Status", b"503"), (b"X-Mock-Share", b"25%"))
    first, second = (
        [_ask(service, CHAT, *headers).status for _ in range(200)]
        for service in (MockService(MockOptions()), MockService(MockOptions()))
    )
    assert first == second
    assert 25 < first.count(503) < 75
    assert first.count(200) == 200 - first.count(503)
