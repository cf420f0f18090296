"""What all exchanges of a worker share."""

from __future__ import annotations

from typing import Protocol

from llm_proxy.events.record import RecordFields
from llm_proxy.http1.timers import Timers
from llm_proxy.server.gateway.routing import Router
from llm_proxy.server.gateway.tokens import Tokens


class RecordSink(Protocol):
    def new_exchange(self) -> int: ...
    def put(self, record: RecordFields) -> None: ...
    def part(self, exchange: int, body: bytes, *, content_encoding: str, stream: bool) -> None: ...


class Gateway:
    __slots__ = (
        "debug_headers",
        "is_draining",
        "recorder",
        "router",
        "timers",
        "tokens",
    )

    def __init__(
        self,
        *,
        router: Router,
        tokens: Tokens,
        timers: Timers,
        recorder: RecordSink | None,
        debug_headers: bool = False,
    ) -> None:
        self.router = router
        self.tokens = tokens
        self.timers = timers
        self.recorder = recorder
        self.debug_headers = debug_headers
        self.is_draining = False
