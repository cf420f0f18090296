"""Rates and concurrency: whether a request may begin now, in the eyes of every limit at once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Protocol

from llm_proxy.grants import TokenGrant
from llm_proxy.limits import LimitDefaults
from llm_proxy.server.channel import LimitsState
from llm_proxy.server.gateway.leased_meters import LeasedMeters
from llm_proxy.server.gateway.meters import Counts, Meters, Slots
from llm_proxy.server.gateway.remote_limits import RemoteLimits
from llm_proxy.server.gateway.subjects import Claim, Subjects

NO_SLOTS: Final[Slots[Any]] = Slots((), (), Meters(time.monotonic_ns))


class LimitedToken(Protocol):
    grant: TokenGrant
    limits: object | None  # what the limiter keeps of it


class Limiter:
    __slots__ = ("_by_address", "_clock", "_counts", "_subjects", "authority", "running")

    def __init__(
        self,
        defaults: LimitDefaults = LimitDefaults(),  # noqa: B008 - immutable
        *,
        authority: RemoteLimits | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Without an authority the counts are those of this worker alone."""
        self._clock = clock
        self._subjects = Subjects(defaults)
        self._by_address = self._subjects.by_address
        self.authority = authority
        self._counts: Counts = (
            Meters(clock) if authority is None else LeasedMeters(authority, clock)
        )
        self.running = 0  # requests that hold slots

    @property
    def refusals(self) -> Counter[tuple[str, str]]:
        return self._counts.refusals

    def take(
        self, token: LimitedToken, client_ip: str, waiter: Callable[[], None]
    ) -> Slots[Any] | None:
        """What the request took of every limit that is its own; it must be given back.

        Raises Refusal. None: `waiter` is called within 2 s or so, and tries again at once.
        """
        claim = token.limits
        if not isinstance(claim, Claim):
            claim = token.limits = Claim(self._subjects.of_grant(token.grant))
        if self._by_address:
            if claim.address != client_ip:
                claim.move(client_ip, self._subjects.of_address(client_ip))
        elif not claim.own:
            return NO_SLOTS
        slots = self._counts.take(claim, waiter)
        if slots is not None:
            self.running += 1
        return slots

    def share(self, authority: RemoteLimits) -> LimitsState:
        """From now on others count too: what was counted here so far, for the authority."""
        if not isinstance(self._counts, Meters):
            return LimitsState()
        leased = LeasedMeters(authority, self._clock)
        leased.refusals = self._counts.refusals
        state = self._counts.hand_over(leased)
        self.authority, self._counts = authority, leased
        return state

    def cancel(self, waiter: Callable[[], None]) -> None:
        """It isn't called any more."""
        self._counts.cancel(waiter)

    def give_back(self, slots: Slots[Any]) -> None:
        """The request has ended."""
        if slots is not NO_SLOTS:
            self.running -= 1
            slots.counts.give_back(slots)

    def refund(self, slots: Slots[Any]) -> None:
        """The request came to nothing: its part of the rates is given back too."""
        if slots is not NO_SLOTS:
            self.running -= 1
            slots.counts.refund(slots)

    def check(self, now: float) -> None:
        """On every tick."""
        self._counts.check()
