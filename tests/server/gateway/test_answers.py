from __future__ import annotations

import msgspec

from llm_proxy.errors import Refusal
from llm_proxy.server.gateway.answers import (
    CONTINUE,
    cors_headers,
    preflight_answer,
    refusal_answer,
    stream_error_event,
)

REFUSAL = Refusal("rate_limited", "Slow down — please.", headers={"Retry-After": "1"})


def answer(*, method: bytes = b"POST", origin: str | None = None, keeps: bool = True) -> bytes:
    return b"".join(
        refusal_answer(REFUSAL, "id-1", method=method, origin=origin, keeps_alive=keeps)
    )


def test_refusal_is_a_whole_response() -> None:
    head, _, body = answer().partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 429 Too Many Requests"
    assert b"Content-Length: %d" % len(body) in lines
    assert b"Retry-After: 1" in lines
    assert b"Connection: keep-alive" in lines
    assert b"LLM-Proxy-Request-ID: id-1" in lines
    assert msgspec.json.decode(body)["error"]["message"] == "Slow down — please."


def test_refusal_of_head_has_the_length_but_no_body() -> None:
    whole, head = answer(), answer(method=b"HEAD")
    assert head == whole[: whole.index(b"\r\n\r\n") + 4]


def test_refusal_says_when_the_connection_closes() -> None:
    assert b"\r\nConnection: close\r\n" in answer(keeps=False)


def test_only_refusals_with_an_origin_have_a_policy() -> None:
    assert b"Access-Control" not in answer()
    assert b"\r\nAccess-Control-Allow-Origin: https://a.test\r\n" in answer(origin="https://a.test")
    assert cors_headers("https://a.test")["Vary"] == "Origin"


def test_preflight_has_no_body() -> None:
    preflight = preflight_answer(
        "https://a.test", "id-1", methods="GET, POST", asked_headers=None, keeps_alive=True
    )
    assert preflight.startswith(b"HTTP/1.1 204 No Content\r\n")
    assert preflight.endswith(b"\r\n\r\n")
    assert b"Content-Length" not in preflight
    assert b"\r\nAccess-Control-Allow-Methods: GET, POST\r\n" in preflight


def test_event_in_a_stream_is_one_line_of_data() -> None:
    event = stream_error_event(Refusal("upstream_broken", "two\nlines"), "id-1")
    assert event.startswith(b'event: error\ndata: {"type":"error",')
    assert event.endswith(b"\n\n")
    assert event.count(b"\n") == 3


def test_continue_is_an_interim_response() -> None:
    assert CONTINUE == b"HTTP/1.1 100 Continue\r\n\r\n"
