"""An api as the gateway uses it: its configuration, made ready for bytes."""

from __future__ import annotations

import sys
from hashlib import sha256
from typing import Final
from urllib.parse import urlsplit

from llm_proxy.http1.egress import Egress
from llm_proxy.http1.origin import Origin
from llm_proxy.http1.pool import Pool
from llm_proxy.http1.resolver import Resolver
from llm_proxy.http1.timers import Timers
from llm_proxy.http1.tls import client_context
from llm_proxy.providers import Api, Connection
from llm_proxy.secrets import Secret
from llm_proxy.server.gateway.breaker import Breaker
from llm_proxy.server.gateway.endpoints import Endpoints

MAX_BREAKERS: Final = 1_000  # of an api: one for each key that is in use
MAX_CHECKED_BODY: Final = 10 * 1024 * 1024  # bytes, of one that must be read whole to be checked


class Upstream:
    """Where requests of one api go, and what of them is allowed."""

    __slots__ = (
        "base_path",
        "endpoints",
        "host_line",
        "is_control",
        "max_body",
        "methods",
        "name",
        "origins",
        "param_whitelist",
        "pool",
        "requires_origin",
        "trips",
        "_breaker_limits",
        "_breakers",
        "_credential_name",
        "_credential_scheme",
    )

    def __init__(self, api: Api, pool: Pool, *, max_body: int) -> None:
        """`max_body` is in bytes."""
        url = urlsplit(api.base_url)
        self.name = api.name
        self.pool = pool
        self.is_control = False
        self.max_body = min(max_body, MAX_CHECKED_BODY) if api.param_whitelist else max_body
        self.base_path = url.path.rstrip("/").encode()
        self.host_line = f"\nHost: {url.netloc}\r".encode()
        self.methods = frozenset(method.encode() for method in api.allowed_methods)
        self.endpoints = Endpoints(api.allowed_endpoints)
        self.origins = frozenset(origin.encode() for origin in api.allowed_origins)
        self.requires_origin = api.require_origin
        self.param_whitelist = api.param_whitelist
        self.trips = 0  # how often a circuit breaker has opened
        self._breakers: dict[bytes, Breaker] = {}  # by digest of the credential, least used first
        self._breaker_limits = api.circuit_breaker
        self._credential_name = api.auth.header
        self._credential_scheme = api.auth.scheme

    def allows(self, endpoint: bytes) -> bool:
        return self.endpoints.allow(endpoint)

    def credential_line(self, key: Secret) -> bytes:
        scheme = f"{self._credential_scheme} " if self._credential_scheme else ""
        return f"\n{self._credential_name}: {scheme}{key.reveal()}\r".encode()

    def breaker(self, key: Secret) -> Breaker:
        """The one of requests with this key: another project's may work while it fails."""
        digest = sha256(key.reveal().encode()).digest()
        breaker = self._breakers.pop(digest, None)
        if breaker is None:
            if len(self._breakers) >= MAX_BREAKERS:
                self._forget_breaker()
            timers = self.pool.timers
            breaker = Breaker(
                self._breaker_limits, lambda: timers.now, api=self.name, on_trip=self._count_trip
            )
        self._breakers[digest] = breaker
        return breaker

    @property
    def breakers(self) -> list[Breaker]:
        return list(self._breakers.values())

    def _forget_breaker(self) -> None:
        closed = (key for key, breaker in self._breakers.items() if not breaker.is_tripped)
        del self._breakers[next(closed, next(iter(self._breakers)))]

    def _count_trip(self) -> None:
        self.trips += 1


def build_upstream(
    api: Api,
    timers: Timers,
    *,
    max_body: int,
    egress: Egress = Egress(),  # noqa: B008 - immutable
    resolver: Resolver | None = None,
) -> Upstream:
    """Opens nothing yet. Raises ConfigError for a `ca_file` that can't be used."""
    url = urlsplit(api.base_url)
    is_tls = url.scheme == "https"
    host, port = url.hostname or "", url.port or (443 if is_tls else 80)
    origin = Origin(
        host=host,
        port=port,
        tls=client_context(api.ca_file) if is_tls else None,
        proxy=egress.proxy_for(url.scheme, host, port),
    )
    pool = Pool(
        origin,
        timers,
        timeouts=api.timeouts,
        limits=api.connection,
        attempts=api.retry.attempts,
        resolver=resolver,
    )
    return Upstream(api, pool, max_body=max_body)


def build_control(socket_path: str, timers: Timers) -> Upstream:
    """The control plane on its private socket; it checks methods, paths and bodies itself."""
    api = Api(name="", base_url="http://llm-proxy", allowed_endpoints=("/*",), allowed_methods=())
    limits = Connection(max_idle_conns=16, idle_timeout=2.0)
    origin = Origin(host="llm-proxy", unix_path=socket_path)
    upstream = Upstream(api, Pool(origin, timers, limits=limits), max_body=sys.maxsize)
    upstream.is_control = True
    return upstream
