"""Rates and concurrency: what a limit says, and how people write one."""

from __future__ import annotations

import re
from typing import Final

import msgspec

_WINDOWS: Final = {"s": 1, "min": 60, "h": 3600, "d": 86400}  # seconds
_ALIASES: Final = {
    "sec": "s",
    "second": "s",
    "m": "min",
    "minute": "min",
    "hour": "h",
    "day": "d",
}
_RATE: Final = re.compile(r"(\d{1,9})\s*/\s*([a-z]+)", re.ASCII)
MAX_BURST: Final = 1_000_000_000
MAX_CONCURRENT: Final = 1_000_000


class RateLimit(msgspec.Struct, frozen=True):
    """At most `burst + T * requests / window_s` requests in any time of T seconds."""

    requests: int
    window_s: int
    burst: int

    @property
    def interval_s(self) -> float:
        """Between requests that come evenly."""
        return self.window_s / self.requests


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Of one token, project, client address or of all requests."""

    rate: RateLimit | None = None  # None: unlimited
    max_concurrent: int = 0  # 0: unlimited

    def __bool__(self) -> bool:
        return self.rate is not None or self.max_concurrent > 0


class LimitOverride(msgspec.Struct, frozen=True, kw_only=True):
    """What a project or token says of its own limits; None: what the configuration says."""

    rate_limit: str | None = None  # as `parse_rate` takes it
    rate_burst: int | None = None
    max_concurrent: int | None = None  # 0: unlimited

    def applied_to(self, default: Limits) -> Limits:
        rate = default.rate
        if self.rate_limit is not None:
            rate = parse_rate(self.rate_limit)
        if rate is not None and self.rate_burst is not None:
            rate = msgspec.structs.replace(rate, burst=self.rate_burst)
        concurrent = default.max_concurrent if self.max_concurrent is None else self.max_concurrent
        return Limits(rate=rate, max_concurrent=concurrent)


class LimitDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration's limits, by whom they are counted for."""

    scope: str = "host"  # or "fleet": all hosts that share a Redis
    total: Limits = Limits()
    client_ip: Limits = Limits()
    project: Limits = Limits()  # of each project that says nothing itself
    token: Limits = Limits()  # of each token that says nothing itself


def parse_rate(text: str) -> RateLimit | None:
    """`60/min`, with a burst of as many; None for `unlimited`. Raises ValueError with the rule."""
    word = text.strip().lower()
    if word == "unlimited":
        return None
    match = _RATE.fullmatch(word)
    unit = _ALIASES.get(match[2], match[2]) if match else ""
    if match is None or unit not in _WINDOWS or int(match[1]) == 0:
        raise ValueError("requests in a time, like 10/s, 60/min, 1000/h or 5000/d, or unlimited")
    requests = int(match[1])
    return RateLimit(requests=requests, window_s=_WINDOWS[unit], burst=requests)


def format_rate(rate: RateLimit | None) -> str:
    """The inverse of `parse_rate`, but for the burst."""
    if rate is None:
        return "unlimited"
    unit = next(name for name, seconds in _WINDOWS.items() if seconds == rate.window_s)
    return f"{rate.requests}/{unit}"
