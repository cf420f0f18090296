"""How a mock upstream behaves when a request doesn't say otherwise."""

from __future__ import annotations

import math
from dataclasses import dataclass

from llm_proxy.errors import ConfigError
from llm_proxy.secrets import Secret

LONGEST_WAIT_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MockOptions:
    tokens_per_second: float = 0.0  # of streams; 0: as fast as possible
    latency_s: float = 0.0  # before the head of an answer
    api_key: Secret | None = None  # None: any key will do
    history: int = 1000  # requests remembered in `MockServer.requests`

    def __post_init__(self) -> None:
        if not (math.isfinite(self.tokens_per_second) and self.tokens_per_second >= 0):
            raise ConfigError(
                f"tokens per second must be 0 or a positive number, not {self.tokens_per_second}; "
                "0 is as fast as possible"
            )
        if not 0 <= self.latency_s <= LONGEST_WAIT_S:
            raise ConfigError(
                f"the latency must be between 0s and {LONGEST_WAIT_S:.0f}s, not {self.latency_s}s"
            )
        if self.api_key is not None and not self.api_key:
            raise ConfigError("the API key is empty; leave it out to accept any key")
        if self.history < 0:
            raise ConfigError(f"the history must be 0 requests or more, not {self.history}")
