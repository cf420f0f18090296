from __future__ import annotations

import asyncio

import pytest

from llm_proxy.errors import ConfigError
from llm_proxy.http1.timers import Timers
from llm_proxy.providers import Api, Auth
from llm_proxy.secrets import Secret
from llm_proxy.server.gateway.api import (
    MAX_CHECKED_BODY,
    Upstream,
    build_control,
    build_upstream,
)

pytestmark = pytest.mark.anyio


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


async def test_unusable_ca_file_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no-such"):
        build("https://a.test", ca_file="/no-such")


async def test_control_plane_takes_everything_on_its_socket() -> None:
    control = build_control("/run/control", Timers(asyncio.get_running_loop()))
    assert control.is_control
    assert str(control.pool.origin) == "/run/control"
    assert control.allows(b"/any") and control.max_body > 1 << 60
