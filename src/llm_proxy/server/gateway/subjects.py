"""Whose requests are counted together: those of a token, a project, an address, or all."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from llm_proxy.grants import TokenGrant
from llm_proxy.limits import LimitDefaults, Limits
from llm_proxy.server.gateway.client_address import network_of

_MAX_ADDRESSES: Final = 10_000  # remembered at a time, each with its subject
_MAX_LIMITS: Final = 10_000


class Subject(msgspec.Struct, frozen=True):
    key: str  # of its count, the same in every worker
    limit: str  # "total", "client_ip", "project" or "token"
    limits: Limits


class Claim:
    """Under whom the requests of one token are counted, and by which meters."""

    __slots__ = ("address", "epoch", "meters", "own", "subjects")

    def __init__(self, own: tuple[Subject, ...]) -> None:
        self.own = self.subjects = own  # whatever address they come from; this one included
        self.address = ""
        self.meters: list[Any] = []  # of `subjects`, found in this epoch of their table
        self.epoch = 0

    def move(self, address: str, subject: Subject) -> None:
        self.address = address
        self.subjects = (*self.own, subject)
        self.epoch = 0


class Subjects:
    __slots__ = ("_addresses", "_defaults", "_limits", "_total", "by_address")

    def __init__(self, defaults: LimitDefaults) -> None:
        self._defaults = defaults
        self._total = (Subject("total", "total", defaults.total),) if defaults.total else ()
        self._addresses: dict[str, Subject] = {}
        self._limits: dict[Limits, Limits] = {}  # so that equal ones are the same
        self.by_address = bool(defaults.client_ip)

    def of_grant(self, grant: TokenGrant) -> tuple[Subject, ...]:
        """Those of every request with this token, the widest first."""
        project = self._same(grant.project_limits.applied_to(self._defaults.project))
        token = self._same(grant.token_limits.applied_to(self._defaults.token))
        return (
            *self._total,
            *((Subject(f"project:{grant.project_id}", "project", project),) if project else ()),
            *((Subject(f"token:{grant.token_id}", "token", token),) if token else ()),
        )

    def _same(self, limits: Limits) -> Limits:
        if len(self._limits) >= _MAX_LIMITS:
            self._limits.clear()
        return self._limits.setdefault(limits, limits)

    def of_address(self, address: str) -> Subject:
        known = self._addresses.get(address)
        if known is None:
            if len(self._addresses) >= _MAX_ADDRESSES:
                self._addresses.clear()
            key = f"client_ip:{network_of(address)}"
            known = Subject(key, "client_ip", self._defaults.client_ip)
            self._addresses[address] = known
        return known
