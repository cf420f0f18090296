"""What a client is told when a limit refuses its request."""

from __future__ import annotations

from typing import Final

from llm_proxy.errors import Refusal
from llm_proxy.gcra import SECOND
from llm_proxy.limits import RateLimit, format_rate
from llm_proxy.server.gateway.subjects import Subject

_WHOSE: Final = {
    "total": "all clients of this server together",
    "client_ip": "your address",
    "project": "the project of this token",
    "token": "this token",
}


def rate_refusal(subject: Subject, rate: RateLimit, wait: int) -> Refusal:
    """`wait` is in nanoseconds: until one request of this subject may pass."""
    seconds = max(1, -(-wait // SECOND))
    written = format_rate(rate)
    return Refusal(
        "rate_limited",
        f"Too many requests of {_WHOSE[subject.limit]}: the limit is {written} "
        f"({rate.burst} at once); try again in {seconds} s.",
        details={
            "limit": subject.limit,
            "rate_limit": written,
            "rate_burst": rate.burst,
            "retry_after_seconds": seconds,
        },
        headers={
            "Retry-After": str(seconds),
            # draft-ietf-httpapi-ratelimit-headers
            "RateLimit-Policy": f'"{subject.limit}";q={rate.requests};w={rate.window_s}',
            "RateLimit": f'"{subject.limit}";r=0;t={seconds}',
            # as SDKs of OpenAI's API know them
            "x-ratelimit-limit-requests": str(rate.requests),
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": format_wait(seconds),
        },
    )


def concurrency_refusal(subject: Subject) -> Refusal:
    most = subject.limits.max_concurrent
    details = {"limit": subject.limit, "max_concurrent": most}
    if subject.limit == "total":
        return Refusal(
            "overloaded",
            f"This server is running all the requests it may ({most}, by MAX_CONCURRENT_REQUESTS "
            "or limits.total.max_concurrent); try again soon.",
            details=details,
            headers={"Retry-After": "1"},
        )
    return Refusal(
        "concurrency_limited",
        f"Too many requests of {_WHOSE[subject.limit]} at once: the limit is {most}; "
        "wait for one of them to end.",
        details=details,
        headers={"Retry-After": "1"},
    )


def unavailable_refusal() -> Refusal:
    return Refusal(
        "limits_unavailable",
        "Whether this request is within its limits can't be known now; try again soon.",
        headers={"Retry-After": "1"},
    )


def format_wait(seconds: int) -> str:
    """As OpenAI's API writes it: 1s, 6m0s, 1h0m0s."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
