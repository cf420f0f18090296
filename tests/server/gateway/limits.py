"""What the tests of limits share: tokens, and a clock that stands until it is moved."""

from __future__ import annotations

from typing import Any

from llm_proxy.gcra import SECOND
from llm_proxy.grants import TokenGrant
from llm_proxy.limits import LimitOverride, Limits, RateLimit


class Clock:
    def __init__(self) -> None:
        self.now = 10**15

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)


class Token:
    """As the limiter sees one."""

    def __init__(self, **fields: Any) -> None:
        self.limits: object | None = None
        self.grant = TokenGrant(
            **{
                "token_id": "t1",
                "project_id": "p1",
                "is_active": True,
                "project_is_active": True,
                "expires_at": None,
                "max_requests": None,
                "upstream_keys": {},
                **fields,
            }
        )


def limited(rate: str | None = None, *, concurrent: int | None = None) -> LimitOverride:
    return LimitOverride(rate_limit=rate, max_concurrent=concurrent)


def per_minute(requests: int, *, burst: int | None = None) -> Limits:
    return Limits(rate=RateLimit(requests, 60, burst or requests))


def at_once(count: int) -> Limits:
    return Limits(max_concurrent=count)
