"""Rates and concurrency: whether a request may begin now, in the eyes of every limit at once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from llm_proxy.grants import TokenGrant
from llm_proxy.limits import LimitDefaults
from llm_proxy.server.gateway.leased_meters import LeasedMeters
from llm_proxy.server.gateway.meters import Meters, Slots
from llm_proxy.server.gateway.remote_limits import RemoteLimits
from llm_proxy.server.gateway.subjects import Subject, Subjects

NO_SLOTS: Final[Slots[Any]] = Slots((), ())


class LimitedToken(Protocol):
    grant: TokenGrant
    limits: object | None  # what the limiter keeps of it


class Counts(Protocol):
    refusals: Counter[tuple[str, str]]  # by limit, "rate" or "concurrency"

    def take(self, subjects: Sequence[Subject], waiter: Callable[[], None]) -> Slots[Any] | None:
        """Of all, or of none: then it raises Refusal, or calls `waiter` later."""

    def cancel(self, waiter: Callable[[], None]) -> None: ...
    def give_back(self, slots: Slots[Any]) -> None: ...
    def refund(self, slots: Slots[Any]) -> None: ...
    def check(self) -> None: ...


class Limiter:
    __slots__ = ("_counts", "_subjects", "authority", "running")

    def __init__(
        self,
        defaults: LimitDefaults = LimitDefaults(),  # noqa: B008 - immutable
        *,
        authority: RemoteLimits | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Without an authority the counts are those of this worker alone."""
        self._subjects = Subjects(defaults)
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
        subjects = token.limits
        if not isinstance(subjects, tuple):
            subjects = token.limits = self._subjects.of_grant(token.grant)
        if self._subjects.by_address:
            subjects = (*subjects, self._subjects.of_address(client_ip))
        elif not subjects:
            return NO_SLOTS
        slots = self._counts.take(subjects, waiter)
        if slots is not None:
            self.running += 1
        return slots

    def cancel(self, waiter: Callable[[], None]) -> None:
        """It isn't called any more."""
        self._counts.cancel(waiter)

    def give_back(self, slots: Slots[Any]) -> None:
        """The request has ended."""
        if slots is not NO_SLOTS:
            self.running -= 1
            self._counts.give_back(slots)

    def refund(self, slots: Slots[Any]) -> None:
        """The request came to nothing: its part of the rates is given back too."""
        if slots is not NO_SLOTS:
            self.running -= 1
            self._counts.refund(slots)

    def check(self, now: float) -> None:
        """On every tick."""
        self._counts.check()
