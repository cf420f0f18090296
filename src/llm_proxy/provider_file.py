"""The provider YAML: from its text to `Providers`, or to a message with the line at fault."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import yaml

from llm_proxy import provider_rules as rules
from llm_proxy.address import is_loopback
from llm_proxy.errors import ConfigError
from llm_proxy.limits import LimitDefaults, LimitOverride
from llm_proxy.limits_section import read_limits, written_limits
from llm_proxy.providers import (
    Api,
    Auth,
    CircuitBreaker,
    Connection,
    Providers,
    Retry,
    Timeouts,
)
from llm_proxy.quantities import format_duration
from llm_proxy.yaml_file import Value, parse_yaml, read_yaml

_API_KEYS = (
    "base_url",
    "auth",
    "allowed_endpoints",
    "allowed_methods",
    "timeouts",
    "connection",
    "retry",
    "circuit_breaker",
    "param_whitelist",
    "allowed_origins",
    "require_origin",
    "required_headers",
    "ca_file",
)
_VERSION_SEGMENT = re.compile(r"/v\d+$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """Settings that complete or replace what the file says."""

    request_timeout: float
    default_api: str | None
    openai_api_url: str | None
    global_rate_limit: str | None = None
    ip_rate_limit: str | None = None
    max_concurrent_requests: int = 0  # 0: what the file says


def builtin_text() -> str:
    """The provider file that holds when none is given."""
    return resources.files("llm_proxy").joinpath("builtin_providers.yaml").read_text("utf-8")


def read_providers(path: Path | None, overrides: Overrides) -> tuple[Providers, list[str]]:
    if path is None:
        document = parse_yaml(builtin_text().encode(), name="the built-in provider file")
        folder = Path.cwd()
    else:
        document = read_yaml(path)
        folder = path.absolute().parent
    reader = _Reader(overrides=overrides, folder=folder)
    return reader.providers(document), reader.warnings


@dataclass(slots=True, kw_only=True)
class _Reader:
    overrides: Overrides
    folder: Path  # of the file: what a relative ca_file is relative to
    warnings: list[str] = field(default_factory=list)

    def providers(self, document: Value) -> Providers:
        top = document.mapping(("default_api", "apis", "limits"))
        if "apis" not in top:
            raise document.problem("the key apis is missing; name at least one api under it")
        apis = {}
        for name, value in top["apis"].mapping().items():
            rules.check_api_name(value, name)
            apis[name] = self._api(name, value)
        if not apis:
            raise top["apis"].error("a mapping with at least one api")
        default_api = self._default_api(document, top.get("default_api"), apis)
        _refuse_shadowing(top["apis"], apis, default_api)
        if self.overrides.openai_api_url and "openai" not in apis:
            self.warnings.append(
                f"OPENAI_API_URL has no effect: {document.name} has no api named openai"
            )
        limits = self._with_settings(read_limits(top.get("limits")))
        return Providers(default_api=default_api, apis=apis, limits=limits)

    def _with_settings(self, limits: LimitDefaults) -> LimitDefaults:
        given = self.overrides
        total = LimitOverride(
            rate_limit=given.global_rate_limit,
            max_concurrent=given.max_concurrent_requests or None,
        )
        client_ip = LimitOverride(rate_limit=given.ip_rate_limit)
        return msgspec.structs.replace(
            limits,
            total=total.applied_to(limits.total),
            client_ip=client_ip.applied_to(limits.client_ip),
        )

    def _default_api(self, document: Value, given: Value | None, apis: dict[str, Api]) -> str:
        choices = ", ".join(apis)
        if (name := self.overrides.default_api) is not None:
            if name not in apis:
                raise ConfigError(
                    f"DEFAULT_API_PROVIDER must name an api of {document.name} ({choices}), "
                    f"not {name!r}"
                )
            return name
        if given is not None:
            if given.text() not in apis:
                raise given.error(f"the name of an api in this file ({choices})")
            return given.text()
        if len(apis) > 1:
            raise document.problem(f"the key default_api is missing; set it to one of {choices}")
        return next(iter(apis))

    def _api(self, name: str, value: Value) -> Api:
        keys = value.mapping(_API_KEYS)
        for required in ("base_url", "allowed_endpoints", "allowed_methods"):
            if required not in keys:
                raise value.key_problem(f"{value.where}.{required} is missing")
        endpoints = _each(keys["allowed_endpoints"], rules.endpoint)
        api = Api(
            name=name,
            base_url=self._base_url(name, keys["base_url"], endpoints),
            allowed_endpoints=endpoints,
            allowed_methods=_each(keys["allowed_methods"], rules.method),
            auth=_auth(keys.get("auth")),
            timeouts=self._timeouts(keys.get("timeouts")),
            connection=_connection(keys.get("connection"), keys.get("timeouts")),
            retry=_retry(keys.get("retry")),
            circuit_breaker=_circuit_breaker(keys.get("circuit_breaker")),
            param_whitelist=_param_whitelist(keys.get("param_whitelist")),
            allowed_origins=_origins(keys.get("allowed_origins")),
            require_origin=_require_origin(keys),
            ca_file=rules.ca_file(keys["ca_file"], self.folder) if "ca_file" in keys else None,
        )
        if api.ca_file and api.base_url.startswith("http:"):
            self._warn(keys["ca_file"], "has no effect on an http base_url")
        return api

    def _warn(self, value: Value, text: str) -> None:
        self.warnings.append(f"{value.name}:{value.line}: {value.where} {text}")

    def _base_url(self, name: str, value: Value, endpoints: tuple[str, ...]) -> str:
        url = rules.base_url(value)
        where = f"{value.name}:{value.line}: {value.where}"
        if name == "openai" and self.overrides.openai_api_url:
            url, where = self.overrides.openai_api_url, "OPENAI_API_URL"
        version = _VERSION_SEGMENT.search(url)
        if version and all(path.startswith(version[0] + "/") for path in endpoints):
            url = url.removesuffix(version[0])
            self.warnings.append(
                f"{where}: its end {version[0]} is left out, because the allowed endpoints begin "
                "with it and it would be sent twice"
            )
        if url.startswith("http:") and not is_loopback(urlsplit(url).hostname or ""):
            self.warnings.append(f"{where}: keys and prompts travel unencrypted over http")
        return url

    def _timeouts(self, value: Value | None) -> Timeouts:
        timeouts = Timeouts(response_header=self.overrides.request_timeout)
        if value is None:
            return timeouts
        keys = value.mapping(
            ("connect", "response_header", "idle", "request", "idle_connection", "flush_interval")
        )
        if "flush_interval" in keys:
            self._warn(keys["flush_interval"], "has no effect: flushing is always immediate")
        waits = {key: wait.duration() for key, wait in keys.items() if key != "flush_interval"}
        if "request" in waits and "response_header" not in waits:
            waits["response_header"] = waits["request"]
        known = {key: waits[key] for key in Timeouts.__struct_fields__ if key in waits}
        return msgspec.structs.replace(timeouts, **known)


def _each(value: Value, rule: Callable[[Value], str]) -> tuple[str, ...]:
    """The items of a list that may not be empty, without repetitions."""
    items = value.items()
    if not items:
        raise value.error("a list with at least one item")
    return tuple(dict.fromkeys(rule(item) for item in items))


def _auth(value: Value | None) -> Auth:
    if value is None:
        return Auth()
    keys = value.mapping(("header", "scheme"))
    auth = Auth()
    return Auth(
        header=rules.credential_header(keys["header"]) if "header" in keys else auth.header,
        scheme=rules.scheme(keys["scheme"]) if "scheme" in keys else auth.scheme,
    )


def _connection(value: Value | None, timeouts: Value | None) -> Connection:
    given: dict[str, float] = {}
    if timeouts is not None and (old := timeouts.mapping().get("idle_connection")) is not None:
        given["idle_timeout"] = old.duration()
    if value is None:
        return Connection(**given)  # type: ignore[arg-type]
    keys = value.mapping(("max_idle_conns", "max_conns", "idle_timeout", "max_idle_conns_per_host"))
    if "max_conns" in keys:
        given["max_conns"] = keys["max_conns"].whole(0, 100_000)
    if "idle_timeout" in keys:
        given["idle_timeout"] = keys["idle_timeout"].duration()
    # An api is one host, so the older two limits are one: the lower.
    idle = [
        keys[key].whole(0, 100_000)
        for key in ("max_idle_conns", "max_idle_conns_per_host")
        if key in keys
    ]
    if idle:
        given["max_idle_conns"] = min(idle)
    return Connection(**given)  # type: ignore[arg-type]


def _retry(value: Value | None) -> Retry:
    if value is None:
        return Retry()
    keys = value.mapping(("attempts",))
    return Retry(attempts=keys["attempts"].whole(0, 10)) if "attempts" in keys else Retry()


def _circuit_breaker(value: Value | None) -> CircuitBreaker:
    if value is None:
        return CircuitBreaker()
    keys = value.mapping(("failures", "cooldown"))
    given: dict[str, float] = {}
    if "failures" in keys:
        given["failures"] = keys["failures"].whole(0, 1000)
    if "cooldown" in keys:
        given["cooldown"] = keys["cooldown"].duration()
    return CircuitBreaker(**given)  # type: ignore[arg-type]


def _param_whitelist(value: Value | None) -> dict[str, tuple[str, ...]]:
    if value is None:
        return {}
    return {name: _each(globs, rules.glob) for name, globs in value.mapping().items()}


def _origins(value: Value | None) -> tuple[str, ...]:
    return tuple(rules.origin(item) for item in value.items()) if value is not None else ()


def _require_origin(keys: dict[str, Value]) -> bool:
    required = keys["require_origin"].flag() if "require_origin" in keys else False
    if "required_headers" in keys:
        for item in keys["required_headers"].items():
            if item.text().lower() != "origin":
                raise item.error("origin, the only header that can be required")
            required = True
    return required


def _refuse_shadowing(value: Value, apis: dict[str, Api], default_api: str) -> None:
    """An api named like the first segment of the default api's paths would take them over."""
    for name in apis:
        for endpoint in apis[default_api].allowed_endpoints:
            if endpoint.split("/")[1] == name:
                raise value.mapping()[name].key_problem(
                    f"{value.where}.{name} has the name that the path {endpoint} of the default "
                    "api begins with, and would receive its requests; rename it"
                )


def provider_text(providers: Providers) -> str:
    """The file that would be read as exactly these apis."""
    document: dict[str, object] = {
        "default_api": providers.default_api,
        "apis": {name: _written_api(api) for name, api in providers.apis.items()},
    }
    if limits := written_limits(providers.limits):
        document["limits"] = limits
    return yaml.safe_dump(document, sort_keys=False, width=100)


def _written_api(api: Api) -> dict[str, object]:
    written: dict[str, object] = msgspec.to_builtins(api)
    written = {key: written[key] for key in _API_KEYS if written.get(key) is not None}
    written["timeouts"] = {
        key: format_duration(wait) for key, wait in msgspec.structs.asdict(api.timeouts).items()
    }
    connection = msgspec.structs.asdict(api.connection)
    written["connection"] = {
        **connection,
        "idle_timeout": format_duration(api.connection.idle_timeout),
    }
    written["circuit_breaker"] = {
        "failures": api.circuit_breaker.failures,
        "cooldown": format_duration(api.circuit_breaker.cooldown),
    }
    return written
