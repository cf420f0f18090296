from __future__ import annotations

from datetime import UTC, datetime

import pytest

from llm_proxy.chat import failures
from llm_proxy.chat.problem import Problem
from llm_proxy.errors import LLMProxyError

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _refused(
    status: int, message: str = "", code: str = "", headers: dict[str, str] | None = None
) -> LLMProxyError:
    problem = Problem(message=message, code=code)
    return failures.refused(status, problem, headers or {}, url="http://x/v1", model="gpt-x")


@pytest.mark.parametrize(
    ("failure", "exit_code", "words"),
    [
        (_refused(401, "it expired"), 3, "refused: it expired; make a new one with `llm-proxy"),
        (_refused(401, "It ran out; ask for a new one"), 3, "refused: It ran out; make a new one"),
        (_refused(403, "not this model"), 3, "may not do this: not this model; look at it"),
        (_refused(404, "no gpt-x here", "model_not_found"), 4, "the model gpt-x can't be used"),
        (_refused(404, "no such url"), 4, "http://x/v1 isn't served there: no such url"),
        (_refused(404, "for gpt-x", "endpoint_not_allowed"), 4, "isn't served there"),
        (_refused(429, headers={"retry-after": "7"}), 1, "too many requests; try again in 7 s"),
        (_refused(429, "slow"), 1, "too many requests: slow; try again a little later"),
        (_refused(429, "all 5", "token_quota_exhausted"), 1, "the token is used up: all 5; make"),
        (_refused(429, "pay", "insufficient_quota"), 1, "account behind it is used up: pay"),
        (_refused(400, "bad"), 1, "refused with 400: bad; check the options"),
        (_refused(413), 1, "too long for it"),
        (
            _refused(301, headers={"location": "https://y"}),
            1,
            "answered 301 and points to https://y",
        ),
        (_refused(500, "oh"), 1, "the other side failed with 500: oh; try again in a moment"),
        (_refused(503, "busy", "overloaded", {"retry-after": "2"}), 1, "try again in 2 s"),
        (_refused(502, "gone", "upstream_unreachable"), 5, "failed with 502: gone"),
        (failures.unreachable("http://x", "refused"), 5, "llm-proxy server start"),
        (failures.silent("http://x", 300), 5, "nothing came from http://x for 300 s"),
        (failures.broken_off(), 1, "broke off"),
        (failures.gave_up("Overloaded"), 1, "gave up in the middle of the answer: Overloaded"),
        (failures.not_understood("http://x", "odd"), 1, "can't be understood (odd); check"),
    ],
)
def test_sentence_says_what_to_do_and_has_its_exit_code(
    failure: LLMProxyError, exit_code: int, words: str
) -> None:
    assert words in str(failure)
    assert failure.exit_code == exit_code


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3", 3),
        ("Thu, 01 Jan 2026 00:00:09 GMT", 9),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0),
        ("Thu, 01 Jan 2026 00:00:09", 9),
        ("soon", None),
        ("", None),
        ("999999999", None),
        ("-1", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: int | None) -> None:
    assert failures.retry_after_s({"retry-after": text}, now=NOW) == seconds
