"""When a token works: from when, until when, and how long unused."""

from __future__ import annotations

import time

from llm_proxy.errors import Refusal
from llm_proxy.grants import TokenGrant
from llm_proxy.quantities import format_duration


def check_times(grant: TokenGrant, now: float, last_used_at: float) -> None:
    """Raises Refusal. All in Unix seconds; `last_used_at` is the latest use that is known here."""
    not_before, expires_at = grant.not_before, grant.expires_at
    if not_before is not None and now < not_before:
        raise Refusal(
            "token_not_yet_valid",
            f"This token works from {format_time(not_before)} on; wait until then.",
            details={"not_before": format_time(not_before)},
        )
    if expires_at is not None and now >= expires_at:
        raise Refusal(
            "token_expired",
            f"This token expired at {format_time(expires_at)}; ask for a new one.",
            details={"expires_at": format_time(expires_at)},
        )
    if grant.idle_timeout is not None and is_idle(grant, now, last_used_at):
        end = format_time(_idle_since(grant, last_used_at) + grant.idle_timeout)
        raise Refusal(
            "token_expired",
            f"This token expired at {end}, because it was not used for "
            f"{format_duration(grant.idle_timeout)}; ask for a new one.",
            details={"expires_at": end, "idle_timeout_seconds": grant.idle_timeout},
        )


def is_idle(grant: TokenGrant, now: float, last_used_at: float) -> bool:
    """Whether it was unused for too long, as far as is known here: look the grant up anew before
    refusing, since others may have used it."""
    timeout = grant.idle_timeout
    return timeout is not None and now >= _idle_since(grant, last_used_at) + timeout


def _idle_since(grant: TokenGrant, last_used_at: float) -> float:
    # Before it is valid it can't be used, so that time doesn't count.
    return max(last_used_at, grant.last_used_at, grant.not_before or 0.0)


def format_time(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
