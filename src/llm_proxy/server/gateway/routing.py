"""From a request target to the api it goes to. Paths are matched raw; nothing is decoded."""

from __future__ import annotations

import re
from typing import Final

from llm_proxy.errors import Refusal
from llm_proxy.server.gateway.api import Upstream

PROBES: Final = frozenset((b"/health", b"/ready", b"/live"))
MANAGEMENT: Final = frozenset((b"manage", b"admin", b"metrics"))
_MAX_REMEMBERED: Final = 4096
_LONGEST_REMEMBERED: Final = 256  # bytes: strangers choose the paths
_ENCODED_PERCENT: Final = re.compile(b"%(?:25)+")
_ENCODED: Final = (
    (b"%2e", b"."),
    (b"%2f", b"/"),
    (b"%5c", b"/"),
    (b"\\", b"/"),
    (b"%3b", b";"),
)


class Route:
    __slots__ = ("endpoint", "endpoint_text", "is_allowed", "upstream", "upstream_path")

    def __init__(self, upstream: Upstream, endpoint: bytes) -> None:
        self.upstream = upstream
        self.endpoint = endpoint  # the path as the api knows it
        self.endpoint_text = endpoint.decode("latin-1")
        self.upstream_path = upstream.base_path + endpoint
        self.is_allowed = upstream.allows(endpoint)


class Router:
    def __init__(
        self,
        upstreams: dict[str, Upstream],
        *,
        default: str,
        control: Upstream,
        management_is_public: bool,
        metrics_path: str | None = None,
    ) -> None:
        self._upstreams = {name.encode(): upstream for name, upstream in upstreams.items()}
        self._default = upstreams[default]
        self._control = control
        self._management_is_public = management_is_public
        paths = () if metrics_path is None else (metrics_path, f"{metrics_path}/prometheus")
        self._metrics_paths = frozenset(path.encode() for path in paths)
        self._remembered: dict[bytes, Route] = {}

    def route(self, target: bytes) -> tuple[Route, bytes]:
        """The route and the query, `?` included. Raises Refusal for a path that can't be one."""
        path, mark, query = target.partition(b"?")
        route = self._remembered.get(path)
        if route is None:
            route = self._find(path)
            is_short = len(path) <= _LONGEST_REMEMBERED
            if is_short and route.is_allowed and target[:1] == b"/":
                if len(self._remembered) >= _MAX_REMEMBERED:
                    self._remembered.clear()
                self._remembered[path] = route
        return route, mark + query

    def _find(self, path: bytes) -> Route:
        path = _origin_form(path)
        _check(path)
        first, slash, rest = path[1:].partition(b"/")
        if path in PROBES:
            return Route(self._control, path)
        if first in MANAGEMENT or path in self._metrics_paths:
            if self._management_is_public:
                return Route(self._control, path)
            raise Refusal("not_found", "Management is served on its own address (--manage-addr).")
        upstream = self._upstreams.get(first)
        if upstream is None:
            return Route(self._default, path)
        _check(slash + rest or b"/")
        return Route(upstream, slash + rest or b"/")

    def hint(self, route: Route) -> str:
        """What to do about a refused endpoint: another api that allows it, if there is one."""
        for name, upstream in self._upstreams.items():
            if upstream is not route.upstream and upstream.allows(route.endpoint):
                return f"Did you mean /{name.decode()}{route.endpoint.decode('latin-1')}?"
        return "Ask whoever runs this proxy to add it to allowed_endpoints."


def _origin_form(path: bytes) -> bytes:
    """Drops scheme and authority of an absolute-form target (RFC 9112 section 3.2.2)."""
    if path[:1] == b"/":
        return path
    scheme, separator, rest = path.partition(b"://")
    if separator and scheme.lower() in (b"http", b"https"):
        slash = rest.find(b"/")
        return rest[slash:] if slash >= 0 else b"/"
    raise Refusal("invalid_request", "The request target must be a path that starts with `/`.")


def _check(path: bytes) -> None:
    if path[:2] == b"//":
        raise Refusal("invalid_request", "The path starts with more than one slash.")
    if b"#" in path:
        raise Refusal("invalid_request", "The path holds a fragment (`#`).")
    if b"." not in path and b"%2" not in path:
        return
    plain = _ENCODED_PERCENT.sub(b"%", path.lower())  # there may be servers that decode twice
    for written, meant in _ENCODED:
        plain = plain.replace(written, meant)
    for segment in plain.split(b"/"):
        if segment.partition(b";")[0] in (b".", b".."):  # some drop parameters, then walk up
            raise Refusal("invalid_request", "The path holds a dot segment (`.` or `..`).")
