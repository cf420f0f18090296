"""How long a mock lets its clients wait: latency, jitter and freezes."""

from __future__ import annotations

import random
from collections.abc import Callable

from llm_proxy.benchmark.mock_faults import Faults
from llm_proxy.benchmark.mock_options import MockOptions


class Waits:
    """Of one server, whose n-th answer waits as long each time the server is started."""

    def __init__(self, options: MockOptions, clock: Callable[[], float]) -> None:
        self._options = options
        self._clock = clock
        self._started_at = clock()
        self.has_freezes = options.freeze is not None
        # One seed for the server: drawn from the request, equal ones would always wait as long.
        self._random = random.Random(0)

    def before_head_s(self, faults: Faults) -> float:
        """A freeze isn't part of it."""
        wait_s = self._options.latency_s if faults.delay_s is None else faults.delay_s
        if self._options.jitter_s:
            wait_s += self._random.uniform(0, self._options.jitter_s)
        return wait_s

    def frozen_s(self) -> float:
        """How long nothing is to be sent from now on; 0.0 when not frozen."""
        freeze = self._options.freeze
        return freeze.left_s(self._clock() - self._started_at) if freeze is not None else 0.0
