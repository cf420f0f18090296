"""The apis that requests are forwarded to: the provider YAML, checked."""

from __future__ import annotations

from pathlib import Path

import msgspec

from llm_proxy.limits import LimitDefaults


class Auth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where an api wants its key; an empty scheme sends the bare key."""

    header: str = "Authorization"
    scheme: str = "Bearer"


class Timeouts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds."""

    connect: float = 5.0
    response_header: float = 120.0
    idle: float = 300.0


class Connection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    max_idle_conns: int = 100
    max_conns: int = 0  # 0: no limit
    idle_timeout: float = 90.0  # seconds


class Retry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    attempts: int = 1  # tries after the first


class CircuitBreaker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    failures: int = 5  # in a row; 0: no circuit breaker
    cooldown: float = 30.0  # seconds


class Api(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    base_url: str
    allowed_endpoints: tuple[str, ...]
    allowed_methods: tuple[str, ...]
    auth: Auth = Auth()
    timeouts: Timeouts = Timeouts()
    connection: Connection = Connection()
    retry: Retry = Retry()
    circuit_breaker: CircuitBreaker = CircuitBreaker()
    param_whitelist: dict[str, tuple[str, ...]] = {}
    allowed_origins: tuple[str, ...] = ()
    require_origin: bool = False
    ca_file: str | None = None  # PEM roots to trust instead of the system's


class Providers(msgspec.Struct, frozen=True):
    default_api: str
    apis: dict[str, Api]
    limits: LimitDefaults = LimitDefaults()


def load_providers(
    path: Path | None,
    *,
    request_timeout: float = 120.0,
    default_api: str | None = None,
    openai_api_url: str | None = None,
    global_rate_limit: str | None = None,
    ip_rate_limit: str | None = None,
    max_concurrent_requests: int = 0,
) -> tuple[Providers, list[str]]:
    """The apis of a provider file (None: the built-in ones), and warnings about it.

    The keyword arguments are the settings of the same name. Raises ConfigError.
    """
    from llm_proxy.provider_file import Overrides, read_providers

    overrides = Overrides(
        request_timeout=request_timeout,
        default_api=default_api,
        openai_api_url=openai_api_url,
        global_rate_limit=global_rate_limit,
        ip_rate_limit=ip_rate_limit,
        max_concurrent_requests=max_concurrent_requests,
    )
    return read_providers(path, overrides)
