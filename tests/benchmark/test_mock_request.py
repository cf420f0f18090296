from __future__ import annotations

import hashlib

import pytest

from llm_proxy.benchmark import mock_request
from llm_proxy.benchmark.mock_request import Request


def test_a_collected_body_comes_whole_from_its_pieces() -> None:
    request = Request("POST", b"/v1/chat/completions", [])
    request.collect()
    request.feed(b"ab")
    request.feed(b"c")
    assert request.body == b"abc"
    assert request.received().body_sha256 == hashlib.sha256(b"abc").hexdigest()


def test_a_body_that_nobody_wants_is_counted_but_not_kept() -> None:
    request = Request("POST", b"/nowhere", [])
    request.feed(b"x" * 1000)
    assert request.body == b""
    assert request.received().body_size == 1000


def test_a_collected_body_beyond_the_limit_is_dropped() -> None:
    request = Request("POST", b"/", [])
    request.collect()
    half = bytes(mock_request.LARGEST_COLLECTED_BODY // 2 + 1)
    request.feed(half)
    assert not request.body_is_too_large
    request.feed(half)
    assert request.body_is_too_large
    assert request.body == b""


def test_the_identity_depends_on_method_target_and_body_but_not_on_headers() -> None:
    def identity(method: str, target: bytes, body: bytes, key: bytes) -> str:
        request = Request(method, target, [(b"Authorization", key)])
        request.feed(body)
        return request.identity()

    first = identity("POST", b"/a", b"body", b"Bearer one")
    assert first == identity("POST", b"/a", b"body", b"Bearer two")
    assert first not in (
        identity("PUT", b"/a", b"body", b""),
        identity("POST", b"/b", b"body", b""),
    )
    assert first != identity("POST", b"/a", b"bodx", b"Bearer one")


def test_headers_are_found_in_any_case_and_kept_in_their_own() -> None:
    request = Request("GET", b"/", [(b"X-Mock-Delay", b"2s "), (b"x-other", b"")])
    assert request.header(b"x-mock-delay") == "2s"
    assert request.header(b"missing") is None
    assert request.received().headers[0] == (b"X-Mock-Delay", b"2s ")


def test_the_query_is_parted_from_the_path() -> None:
    request = Request("GET", b"/v1/files?limit=2&after=file-1?", [])
    assert request.path == "/v1/files"
    assert request.parameters() == {"limit": "2", "after": "file-1?"}


@pytest.mark.parametrize(
    ("target", "name"), [(b"/v1/models/gpt-4o", "gpt-4o"), (b"/v1/models/org%2Fm", "org/m")]
)
def test_segments_are_percent_decoded(target: bytes, name: str) -> None:
    assert Request("GET", target, []).segment(2) == name
