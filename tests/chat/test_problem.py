from __future__ import annotations

import pytest

from llm_proxy.chat.problem import Problem, read_problem


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (
            b'{"type":"error","error":{"type":"authentication_error","code":"token_expired",'
            b'"message":"expired; make one."},"request_id":"x"}',
            Problem(message="expired; make one", code="token_expired"),
        ),
        (
            b'{"error":{"message":"No such model","type":"invalid_request_error","code":null}}',
            Problem(message="No such model", code="invalid_request_error"),
        ),
        (
            b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
            Problem(message="Overloaded", code="overloaded_error"),
        ),
        (b'{"error":"model not found"}', Problem(message="model not found")),
        (b'{"detail":"Not Found"}', Problem(message="Not Found")),
        (b'{"error":{"code":7,"message":"m\\u001b[2Jx"}}', Problem(message="mx")),
        (b"upstream connect error", Problem(message="upstream connect error")),
        (b"<html><h1>502</h1>", Problem(message="")),
        (b"[1]", Problem(message="")),
        (b"\xff\xfe", Problem(message="\ufffd\ufffd")),
        (b"", Problem(message="")),
        (b'[{"error":{"code":400,"message":"Bad key"}}]', Problem(message="Bad key")),
        (b"[]", Problem(message="")),
        (b"[" * 5000, Problem(message="[" * 4096)),
    ],
)
def test_every_way_to_say_it_is_understood(body: bytes, problem: Problem) -> None:
    assert read_problem(body) == problem


def test_path_that_is_not_allowed_is_told_from_a_model() -> None:
    assert Problem(message="x", code="endpoint_not_allowed").is_of_the_path
    assert not Problem(message="x", code="model_not_found").is_of_the_path
