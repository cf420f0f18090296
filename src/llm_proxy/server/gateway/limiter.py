"""Placeholder of the lead, so that the tree stays importable: to be overwritten by the limiter."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from llm_proxy.server.gateway.tokens import KnownToken

Slots = tuple[object, ...]
NO_SLOTS: Final[Slots] = ()


class Limiter:
    def take(self, token: KnownToken, client_ip: str, waiter: Callable[[], None]) -> Slots | None:
        return NO_SLOTS

    def cancel(self, waiter: Callable[[], None]) -> None: ...
    def give_back(self, slots: Slots) -> None: ...
    def refund(self, slots: Slots) -> None: ...
