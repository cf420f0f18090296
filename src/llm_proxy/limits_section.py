"""The section `limits` of the provider YAML."""

from __future__ import annotations

from typing import Final

import msgspec

from llm_proxy.limits import (
    MAX_BURST,
    MAX_CONCURRENT,
    LimitDefaults,
    Limits,
    RateLimit,
    format_rate,
    parse_rate,
)
from llm_proxy.yaml_file import Value

SCOPES: Final = ("host", "fleet")
_COUNTED: Final = ("total", "client_ip", "project", "token")


def read_limits(section: Value | None) -> LimitDefaults:
    if section is None:
        return LimitDefaults()
    keys = section.mapping(("scope", *_COUNTED))
    scope = keys["scope"].text() if "scope" in keys else "host"
    if scope not in SCOPES:
        raise keys["scope"].error("host or fleet")
    limits = {name: _limits(keys[name]) for name in _COUNTED if name in keys}
    return LimitDefaults(scope=scope, **limits)


def _limits(value: Value) -> Limits:
    keys = value.mapping(("rate_limit", "burst", "max_concurrent"))
    rate = _rate(keys["rate_limit"]) if "rate_limit" in keys else None
    if "burst" in keys:
        if rate is None:
            raise keys["burst"].problem(
                f"{keys['burst'].where} has no meaning without a rate_limit beside it"
            )
        rate = msgspec.structs.replace(rate, burst=keys["burst"].whole(1, MAX_BURST))
    concurrent = keys["max_concurrent"].whole(0, MAX_CONCURRENT) if "max_concurrent" in keys else 0
    return Limits(rate=rate, max_concurrent=concurrent)


def _rate(value: Value) -> RateLimit | None:
    try:
        return parse_rate(value.written())
    except ValueError as exc:
        raise value.error(str(exc)) from None


def written_limits(defaults: LimitDefaults) -> dict[str, object]:
    """What would be read as exactly these; empty when there are none."""
    written: dict[str, object] = {"scope": defaults.scope} if defaults.scope != "host" else {}
    for name in _COUNTED:
        limits: Limits = getattr(defaults, name)
        if limits:
            written[name] = _written(limits)
    return written


def _written(limits: Limits) -> dict[str, object]:
    written: dict[str, object] = {}
    if limits.rate is not None:
        written = {"rate_limit": format_rate(limits.rate), "burst": limits.rate.burst}
    if limits.max_concurrent:
        written["max_concurrent"] = limits.max_concurrent
    return written
