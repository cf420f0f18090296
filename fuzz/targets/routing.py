"""Paths: one that goes to an api never means a control path, or another api, to anybody."""

from __future__ import annotations

import asyncio
import posixpath
import re
from urllib.parse import unquote_to_bytes

from fuzz.target import Target, must
from llm_proxy.errors import Refusal
from llm_proxy.http1.timers import Timers
from llm_proxy.providers import Api
from llm_proxy.server.gateway.api import build_control, build_upstream
from llm_proxy.server.gateway.request_head import parse_request_head
from llm_proxy.server.gateway.routing import MANAGEMENT, PROBES, Route, Router

BASES = {"a": b"/base/v1", "b": b""}


async def _make_router() -> Router:
    timers = Timers(asyncio.get_running_loop())
    apis = {
        name: Api(
            name=name,
            base_url=f"http://192.0.2.{number}{base.decode()}",
            allowed_endpoints=("/v1/chat", "/v1/files/*"),
            allowed_methods=("GET",),
        )
        for number, (name, base) in enumerate(BASES.items(), 1)
    }
    return Router(
        {name: build_upstream(api, timers, max_body=1) for name, api in apis.items()},
        default="a",
        control=build_control("/nowhere", timers),
        management_is_public=True,
    )


ROUTER = asyncio.run(_make_router())


def run(data: bytes) -> None:
    try:
        target = parse_request_head(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % data).target
    except Refusal:
        return
    for attempt in range(2):  # the second time it is remembered
        try:
            route, query = ROUTER.route(target)
        except Refusal as refusal:
            must(refusal.status_code in (400, 404), "another refusal")
            return
        must(query == target[len(target.partition(b"?")[0]) :], "another query")
        _check(route, target, attempt)


def _check(route: Route, target: bytes, attempt: int) -> None:
    name = route.upstream.name
    if route.upstream.is_control:
        first = route.endpoint[1:].partition(b"/")[0]
        must(first in MANAGEMENT or route.endpoint in PROBES, "a stranger at the control plane")
        normal = _normal(route.endpoint)
        must(normal.split(b"/")[1] in MANAGEMENT or normal in PROBES, "a control path that moves")
        return
    base = BASES[name]
    must(route.upstream_path == base + route.endpoint, "another path at the upstream")
    must(route.endpoint.startswith(b"/") and not route.endpoint.startswith(b"//"), "no path")
    for decode in (_once, _twice, _backslashes, _parameters):
        seen = decode(route.upstream_path)
        normal = posixpath.normpath(seen)
        must(normal == base or normal.startswith(base + b"/") or not base, "it leaves its base")
    if route.is_allowed and route.endpoint != b"/v1/chat":
        for decode in (_once, _twice, _backslashes, _parameters):
            normal = posixpath.normpath(decode(route.endpoint))
            must(
                normal == b"/v1/files" or normal.startswith(b"/v1/files/"), "it leaves its subtree"
            )
    must(route.endpoint == _expected(target, name), f"another endpoint ({attempt})")


def _expected(target: bytes, name: str) -> bytes:
    path = target.partition(b"?")[0]
    if not path.startswith(b"/"):
        path = re.sub(rb"^https?://[^/]*", b"", path, flags=re.IGNORECASE) or b"/"
    prefix = b"/" + name.encode()
    if path == prefix or path.startswith(prefix + b"/"):
        return path[len(prefix) :] or b"/"
    return path


def _once(path: bytes) -> bytes:
    return unquote_to_bytes(path)


def _twice(path: bytes) -> bytes:
    return unquote_to_bytes(unquote_to_bytes(path))


def _backslashes(path: bytes) -> bytes:
    return unquote_to_bytes(path).replace(b"\\", b"/")


def _parameters(path: bytes) -> bytes:
    return re.sub(rb";[^/]*", b"", unquote_to_bytes(path))


def _normal(path: bytes) -> bytes:
    return posixpath.normpath(unquote_to_bytes(path).replace(b"\\", b"/"))


TARGET = Target(
    covers=("llm_proxy.server.gateway.routing",),
    run=run,
    words=(
        *(
            b"/v1/files/",
            b"/v1/chat",
            b"/a/",
            b"/b/",
            b"/manage",
            b"/metrics",
            b"/health",
            b"/admin",
        ),
        *(
            b"/../",
            b"/./",
            b"%2e%2e",
            b"%2f",
            b"%5c",
            b"%252e",
            b"\\",
            b";",
            b"?",
            b"#",
            b"//",
            b"%",
        ),
        *(b"http://a", b"https://", b"%6d", b"%00", b"*", b"..;", b"%3b", b"%25"),
    ),
    max_bytes=200,
    seeds=(
        b"/v1/chat?a=b",
        b"/b/v1/files/x",
        b"/a",
        b"http://h:1/v1/chat",
        b"/v1/files/%2e%2e/%2e%2e/manage",
        b"/v1/files/..%5c..%5cx",
        b"/v1/files/%252e%252e/x",
        b"/v1/files/..;/x",
        b"//manage/projects",
        b"/manage/projects",
        b"/health",
        b"/a//manage",
    ),
)
