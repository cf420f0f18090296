"""What follows from a request's head alone: its route, what refuses it, its head for the upstream.

Made once for all requests of a connection whose heads differ only in their length.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from llm_proxy.errors import Refusal
from llm_proxy.secrets import token_digest
from llm_proxy.server.gateway.cors import check_origin, is_preflight
from llm_proxy.server.gateway.request_head import CREDENTIALS, RequestHead, drop_lines
from llm_proxy.server.gateway.routing import Route, Router

_END: Final = b"\n\r\n"  # of a head whose last line has its CR


class Plan:
    __slots__ = (
        "_after",
        "_before",
        "_credential_line",
        "digest",
        "is_preflight",
        "offers_websocket",
        "query",
        "route",
    )

    def __init__(self, route: Route, query: bytes) -> None:
        self.route = route
        self.query = query  # `?` included
        self.is_preflight = False
        self.offers_websocket = False
        self.digest = b""  # of the client's token; empty where none is needed
        self._credential_line = b""  # that `_before` and `_after` were made with
        self._before = b""
        self._after = b""

    def check(self, head: RequestHead, router: Router) -> None:
        """Raises Refusal, in the order of the contract: method, endpoint, origin, token."""
        route, upstream = self.route, self.route.upstream
        if upstream.is_control:
            return
        if head.method == b"OPTIONS" and is_preflight(head):
            check_origin(head, upstream)
            self.is_preflight = True
            return
        if head.method not in upstream.methods:
            methods = b", ".join(sorted(upstream.methods)).decode()
            raise Refusal(
                "method_not_allowed",
                f"{head.method.decode()} is not allowed for the api {upstream.name!r}; "
                f"allowed: {methods}.",
                headers={"Allow": methods},
            )
        if not route.is_allowed:
            raise Refusal(
                "endpoint_not_allowed",
                f"{route.endpoint_text} is not an allowed endpoint of the api "
                f"{upstream.name!r}. {router.hint(route)}",
            )
        if upstream.requires_origin or b"origin" in head.named:
            check_origin(head, upstream)
        self.digest = token_digest(client_token(head))
        self.offers_websocket = head.offers_websocket

    def upstream_head(self, head: RequestHead, credential_line: bytes) -> bytes:
        """The head as the upstream gets it, with this credential."""
        length_line = head.length_line
        if credential_line is not self._credential_line:
            self._credential_line = credential_line
            whole = build_upstream_head(head, self, credential_line=credential_line)
            # Only the line of the length can differ the next time.
            self._before, _, self._after = whole.partition(length_line or _END)
            self._after = self._after if length_line else _END
        return self._before + length_line + self._after


def build_upstream_head(
    head: RequestHead, plan: Plan, *, credential_line: bytes = b"", added: Iterable[bytes] = ()
) -> bytes:
    """`added` are lines, cut as `headers.py` cuts them."""
    parts = head.parts.copy()
    target = plan.route.upstream_path + plan.query
    if target != head.target or head.is_http_10:
        _, _, rest = parts[0].partition(b"\r")
        parts[0] = b"%b %b HTTP/1.1\r%b" % (head.method, target, rest)
    if credential_line:
        name, _, _ = credential_line[1:].partition(b":")
        if name.lower() not in CREDENTIALS:  # those are gone already
            drop_lines(parts, (name.lower(),))
        if head.credential_at:
            parts[head.credential_at] = credential_line
        else:  # the token was a sub-protocol
            parts.append(credential_line)
    if head.length_line:
        parts[head.length_at] = head.length_line
    host_line = plan.route.upstream.host_line
    if head.host_at:
        parts[head.host_at] = host_line
    else:
        parts.append(host_line)
    parts += added
    if head.is_chunked:
        parts.append(b"\nTransfer-Encoding: chunked\r")
    if plan.offers_websocket:
        parts.append(b"\nConnection: Upgrade\r\nUpgrade: websocket\r")
    parts.append(_END)
    return b"".join(parts)


def control_head(head: RequestHead, plan: Plan, client_address: str, request_id: str) -> bytes:
    """The control plane checks the management token itself, and is told who asks."""
    added = [b"\nX-Forwarded-For: %b\r" % client_address.encode()]
    if b"authorization" in head.named:
        added.append(b"\nAuthorization: %b\r" % head.named[b"authorization"])
    if head.named.get(b"x-request-id") != request_id.encode():
        added.append(b"\nX-Request-ID: %b\r" % request_id.encode())
    return build_upstream_head(head, plan, added=added)


def client_token(head: RequestHead) -> bytes:
    """From `Authorization: Bearer`, else the first of the other headers, else the sub-protocol.
    Raises Refusal."""
    named = head.named
    scheme, _, token = named.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and token:
        return token.strip()
    for name in CREDENTIALS[1:]:
        token = named.get(name, b"")
        if token:
            return token
    if head.key_protocol:
        return head.key_protocol
    raise Refusal(
        "missing_token",
        "The request has no token; send it as `Authorization: Bearer sk-…` or `x-api-key`.",
    )
