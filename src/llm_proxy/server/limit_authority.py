"""Who hands out the permits of rates and concurrency limits to the workers of a server.

A permit of a rate is good until a moment that comes with it. What is issued is chosen so that the
limit holds at whatever moments up to then the permits are used.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from llm_proxy.errors import LLMProxyError
from llm_proxy.limits import RateLimit


class LimitsUnavailable(LLMProxyError):
    """Whether a limit is kept can't be known now, and the policy says to refuse."""


class RatePermits(msgspec.Struct, frozen=True):
    permits: int
    wait_s: float = 0.0  # with none: until there may be one
    valid_until: int = 0  # of `time.monotonic_ns()` on this host; 0.1 s from now at most


class Authority(Protocol):
    """A key names a limit of one token, project or address, or that of all requests.

    Every method may raise LimitsUnavailable, but for `forget` and `close`.
    """

    async def take_rate(self, key: str, rate: RateLimit, wanted: int) -> RatePermits:
        """Up to `wanted` permits; the state of the key outlives a change of its rate."""

    async def give_rate(self, key: str, rate: RateLimit, permits: int, age_s: float) -> None:
        """So many were never used; they were taken together, `age_s` ago at most."""

    async def take_slots(self, key: str, most: int, wanted: int, holder: str) -> int:
        """Up to `wanted` of the `most` there are."""

    async def give_slots(self, key: str, count: int, holder: str) -> None: ...

    async def forget(self, holder: str) -> None:
        """That worker has ended: its slots are free."""

    async def close(self) -> None: ...
