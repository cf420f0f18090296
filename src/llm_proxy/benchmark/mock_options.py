"""How a mock upstream behaves when a request doesn't say otherwise."""

from __future__ import annotations

import math
from dataclasses import dataclass

from llm_proxy.errors import ConfigError
from llm_proxy.secrets import Secret

LONGEST_WAIT_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """Times at which a mock doesn't answer: each `every_s` since its start, for `for_s`."""

    every_s: float
    for_s: float

    def __post_init__(self) -> None:
        if not 0 < self.for_s < self.every_s <= LONGEST_WAIT_S:
            raise ConfigError(
                f"a freeze must last longer than 0s and shorter than the time from one to the "
                f"next, which is at most {LONGEST_WAIT_S:.0f}s; "
                f"not {self.for_s}s every {self.every_s}s"
            )

    def left_s(self, elapsed_s: float) -> float:
        """How much longer it lasts, so long after the start; 0.0 outside of one."""
        since_s = elapsed_s % self.every_s
        is_frozen = elapsed_s >= self.every_s and since_s < self.for_s
        return self.for_s - since_s if is_frozen else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MockOptions:
    tokens_per_second: float = 0.0  # of streams; 0: as fast as possible
    latency_s: float = 0.0  # before the head of an answer
    jitter_s: float = 0.0  # as much more at most, another time for each answer
    freeze: Freeze | None = None
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
        if not 0 <= self.jitter_s <= LONGEST_WAIT_S:
            raise ConfigError(
                f"the jitter must be between 0s and {LONGEST_WAIT_S:.0f}s, not {self.jitter_s}s"
            )
        if self.api_key is not None and not self.api_key:
            raise ConfigError("the API key is empty; leave it out to accept any key")
        if self.history < 0:
            raise ConfigError(f"the history must be 0 requests or more, not {self.history}")
