"""What a token allows: the immutable snapshot that the store makes and the gateway obeys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from llm_proxy.limits import LimitOverride
from llm_proxy.secrets import Secret


class Scope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a token is narrowed to; an empty list narrows nothing."""

    apis: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()  # exact, or a trailing /* for a subtree
    methods: tuple[str, ...] = ()
    models: tuple[str, ...] = ()  # globs
    networks: tuple[str, ...] = ()  # client addresses, or networks in CIDR form

    def __bool__(self) -> bool:
        return any((self.apis, self.endpoints, self.methods, self.models, self.networks))


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGrant:
    """Times are Unix seconds."""

    token_id: str
    project_id: str
    is_active: bool
    project_is_active: bool
    not_before: float | None = None
    expires_at: float | None  # None: never
    warns_at: float | None = None  # from when on answers say that it expires soon
    idle_timeout: float | None = None  # seconds without use after which it has expired
    last_used_at: float = 0.0  # as stored when the snapshot was taken; its creation before any use
    max_requests: int | None  # None: no cap
    scope: Scope = Scope()
    token_limits: LimitOverride = LimitOverride()
    project_limits: LimitOverride = LimitOverride()
    upstream_keys: Mapping[str, Secret]  # by name of the api


class Lease(msgspec.Struct, frozen=True):
    """Permits that a worker may spend, one for a request."""

    id: int  # never used again
    granted: int | None  # in all since it was taken, the spent ones included; None: no cap


class NoPermits(msgspec.Struct, frozen=True):
    """The cap leaves nothing for now."""

    is_final: bool  # False: others hold permits that they may give back


class LeaseUse(msgspec.Struct, frozen=True):
    """What was spent of a lease since it was taken: telling it twice changes nothing."""

    lease_id: int
    used: int
    last_used_at: float  # Unix seconds; 0: never
