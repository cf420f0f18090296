from __future__ import annotations

import asyncio

import msgspec
import pytest

from llm_proxy.errors import ConfigError
from llm_proxy.http1.egress import read_egress
from llm_proxy.http1.timers import Timers
from llm_proxy.providers import Api, Auth, CircuitBreaker
from llm_proxy.secrets import Secret
from llm_proxy.server.gateway.api import (
    MAX_BREAKERS,
    MAX_CHECKED_BODY,
    Upstream,
    build_control,
    build_upstream,
)

pytestmark = pytest.mark.anyio


API = Api(
    name="openai",
    base_url="http://a.test",
    allowed_endpoints=("/v1/models",),
    allowed_methods=("GET",),
)


def build(base_url: str = "http://a.test", *, max_body: int = 1000, **changes: object) -> Upstream:
    values: dict[str, object] = {
        "name": "openai",
        "base_url": base_url,
        "allowed_endpoints": ("/v1/models", "/v1/files/*"),
        "allowed_methods": ("GET", "POST"),
    }
    api = Api(**(values | changes))  # type: ignore[arg-type]
    return build_upstream(api, Timers(asyncio.get_running_loop()), max_body=max_body)


@pytest.mark.parametrize(
    ("endpoint", "allowed"),
    [
        (b"/v1/models", True),
        (b"/v1/models/", False),
        (b"/v1/models/x", False),
        (b"/v1/Models", False),
        (b"/v1/files", True),
        (b"/v1/files/", True),
        (b"/v1/files/a/b", True),
        (b"/v1/files2", False),
        (b"/v1/file%73", False),
        (b"/", False),
    ],
)
async def test_endpoints_are_allowed_exactly_or_as_a_subtree(
    endpoint: bytes, allowed: bool
) -> None:
    assert build().allows(endpoint) is allowed


async def test_star_allows_everything() -> None:
    upstream = build(allowed_endpoints=("/*",))
    assert upstream.allows(b"/") and upstream.allows(b"/any/thing")


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "host_line"),
    [
        ("http://a.test", "a.test", 80, b"", b"\nHost: a.test\r"),
        ("http://a.test:8080/v2/", "a.test", 8080, b"/v2", b"\nHost: a.test:8080\r"),
        ("http://[::1]:81/x/y", "::1", 81, b"/x/y", b"\nHost: [::1]:81\r"),
        ("https://a.test", "a.test", 443, b"", b"\nHost: a.test\r"),
    ],
)
async def test_base_url_is_taken_apart(
    url: str, host: str, port: int, path: bytes, host_line: bytes
) -> None:
    upstream = build(url)
    origin = upstream.pool.origin
    assert (origin.host, origin.port) == (host, port)
    assert (upstream.base_path, upstream.host_line) == (path, host_line)
    assert (origin.tls is not None) is url.startswith("https")


async def test_credential_is_placed_as_the_api_wants_it() -> None:
    key = Secret("sk-1")
    assert build().credential_line(key) == b"\nAuthorization: Bearer sk-1\r"
    bare = build(auth=Auth(header="x-api-key", scheme=""))
    assert bare.credential_line(key) == b"\nx-api-key: sk-1\r"


async def test_body_that_is_checked_has_a_limit_of_its_own() -> None:
    checked = {"model": ("a",)}
    assert build(max_body=50 << 20).max_body == 50 << 20
    assert build(max_body=50 << 20, param_whitelist=checked).max_body == MAX_CHECKED_BODY
    assert build(max_body=10, param_whitelist=checked).max_body == 10


async def test_upstream_is_reached_through_the_proxy_of_its_scheme() -> None:
    egress = read_egress({"HTTPS_PROXY": "http://p.test:3128", "NO_PROXY": "b.test:8443"})
    timers = Timers(asyncio.get_running_loop())
    proxies = {
        url: build_upstream(
            msgspec.structs.replace(API, base_url=url), timers, max_body=1, egress=egress
        ).pool.origin.proxy
        for url in ("https://a.test", "http://a.test", "https://b.test", "https://b.test:8443")
    }
    assert [url for url, proxy in proxies.items() if proxy] == ["https://a.test", "https://b.test"]


async def test_unusable_ca_file_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no-such"):
        build("https://a.test", ca_file="/no-such")


async def test_control_plane_takes_everything_on_its_socket() -> None:
    control = build_control("/run/control", Timers(asyncio.get_running_loop()))
    assert control.is_control
    assert str(control.pool.origin) == "/run/control"
    assert control.allows(b"/any") and control.max_body > 1 << 60


async def test_each_key_has_a_circuit_breaker_of_its_own() -> None:
    upstream = build(circuit_breaker=CircuitBreaker(failures=2, cooldown=30))
    one, other = upstream.breaker(Secret("sk-one")), upstream.breaker(Secret("sk-other"))
    assert upstream.breaker(Secret("sk-one")) is one
    for _ in range(2):
        one.failed(object(), "status 500")
    assert one.is_tripped
    assert not other.is_tripped
    assert upstream.trips == 1
    assert upstream.breakers == [other, one]


async def test_circuit_breakers_are_found_by_a_digest() -> None:
    upstream = build()
    upstream.breaker(Secret("sk-one"))
    assert "sk-one" not in repr(upstream._breakers)
    assert [len(key) for key in upstream._breakers] == [32]


async def test_circuit_breakers_are_bounded_and_a_closed_one_goes_first() -> None:
    upstream = build(circuit_breaker=CircuitBreaker(failures=1, cooldown=30))
    tripped = upstream.breaker(Secret("sk-tripped"))
    tripped.failed(object(), "status 500")
    closed = upstream.breaker(Secret("sk-closed"))
    for number in range(MAX_BREAKERS - 1):
        upstream.breaker(Secret(f"sk-{number}"))
    assert len(upstream.breakers) == MAX_BREAKERS
    assert upstream.breaker(Secret("sk-tripped")) is tripped
    assert upstream.breaker(Secret("sk-closed")) is not closed


async def test_when_all_are_open_the_least_used_goes() -> None:
    upstream = build(circuit_breaker=CircuitBreaker(failures=1, cooldown=30))
    made = [upstream.breaker(Secret(f"sk-{number}")) for number in range(MAX_BREAKERS)]
    for breaker in made:
        breaker.failed(object(), "status 500")
    upstream.breaker(Secret("sk-new"))
    assert len(upstream.breakers) == MAX_BREAKERS
    assert made[0] not in upstream.breakers
    assert upstream.trips == MAX_BREAKERS


async def test_a_cooldown_is_timed_by_the_clock_of_the_timers() -> None:
    upstream = build(circuit_breaker=CircuitBreaker(failures=1, cooldown=30))
    breaker = upstream.breaker(Secret("sk-one"))
    breaker.failed(object(), "status 500")
    assert [breaker.state] == ["open"]
    upstream.pool.timers.now += 30
    assert [breaker.state] == ["half_open"]
