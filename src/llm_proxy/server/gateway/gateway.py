"""What all exchanges of a worker share."""

from __future__ import annotations

from typing import Final, Protocol

from llm_proxy.client_limits import ClientLimits
from llm_proxy.errors import Refusal
from llm_proxy.events.record import RecordFields
from llm_proxy.http1.timers import Timers
from llm_proxy.server.gateway.client_address import TrustedProxies
from llm_proxy.server.gateway.limiter import Limiter
from llm_proxy.server.gateway.metrics import Metrics
from llm_proxy.server.gateway.refusals import Refusals
from llm_proxy.server.gateway.routing import Router
from llm_proxy.server.gateway.tokens import Tokens

MAX_HELD_BYTES: Final = 256 << 20  # of bodies that can only be checked once they are there


class RecordSink(Protocol):
    def new_exchange(self) -> int: ...
    def put(self, record: RecordFields) -> None: ...
    def part(self, exchange: int, body: bytes, *, content_encoding: str, stream: bool) -> None: ...


class Gateway:
    __slots__ = (
        "client_limits",
        "debug_headers",
        "held_bytes",
        "is_draining",
        "limiter",
        "metrics",
        "recorder",
        "refusals",
        "router",
        "running",
        "timers",
        "tokens",
        "trusted_proxies",
    )

    def __init__(
        self,
        *,
        router: Router,
        tokens: Tokens,
        timers: Timers,
        recorder: RecordSink | None,
        metrics: Metrics,
        client_limits: ClientLimits = ClientLimits(),  # noqa: B008 - immutable
        limiter: Limiter | None = None,
        debug_headers: bool = False,
        trusted_proxies: TrustedProxies | None = None,
    ) -> None:
        self.router = router
        self.tokens = tokens
        self.timers = timers
        self.recorder = recorder
        self.refusals = Refusals()
        self.metrics = metrics
        self.client_limits = client_limits
        self.limiter = limiter or Limiter()
        self.debug_headers = debug_headers
        self.trusted_proxies = trusted_proxies
        self.is_draining = False
        self.running = 0  # requests admitted to an api and not ended
        self.held_bytes = 0  # of bodies that are held until they can be checked

    def hold(self, size: int, before: int) -> int:
        """So many bytes of a body are held, and not those before; raises Refusal when all bodies
        together are too much."""
        if self.held_bytes + size - before > MAX_HELD_BYTES:
            raise Refusal(
                "overloaded",
                "This server holds all the request bodies that it may while it checks their "
                "parameters; try again soon.",
                headers={"Retry-After": "1"},
            )
        self.held_bytes += size - before
        return size
