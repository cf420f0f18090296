"""Origins (RFC 6454) and cross-origin sharing (Fetch standard)."""

from __future__ import annotations

import re
from typing import Final

from llm_proxy.errors import Refusal
from llm_proxy.http1.headers import line_pattern
from llm_proxy.server.gateway.answers import EXPOSED_HEADERS, preflight_answer
from llm_proxy.server.gateway.api import Upstream
from llm_proxy.server.gateway.request_head import RequestHead

_UPSTREAM_LINES: Final[re.Pattern[bytes]] = line_pattern(
    ["access-control-allow-origin", "access-control-expose-headers"]
)


def is_preflight(head: RequestHead) -> bool:
    return b"origin" in head.named and b"access-control-request-method" in head.named


def answer_preflight(
    head: RequestHead, upstream: Upstream, request_id: str, *, keeps_alive: bool
) -> bytes:
    asked = head.named.get(b"access-control-request-headers", b"").decode("latin-1")
    return preflight_answer(
        head.named[b"origin"].decode("latin-1"),
        request_id,
        methods=b", ".join(sorted(upstream.methods)).decode(),
        asked_headers=asked or None,
        keeps_alive=keeps_alive,
    )


def check_origin(head: RequestHead, upstream: Upstream) -> None:
    """Raises Refusal when the origin is missing where it must be sent, or is not allowed."""
    origin = head.named.get(b"origin")
    if origin is None:
        if upstream.requires_origin:
            raise Refusal(
                "origin_required", f"The api {upstream.name!r} wants an Origin header; send one."
            )
    elif upstream.origins and origin not in upstream.origins:
        raise Refusal(
            "origin_not_allowed",
            f"The origin {origin.decode('latin-1')!r} is not in allowed_origins of the api "
            f"{upstream.name!r}; ask whoever runs this proxy to add it.",
        )


def allowed_origin(head: RequestHead, upstream: Upstream | None) -> str | None:
    """The origin whose pages may read a refusal; None: no page, or none that is allowed."""
    origin = head.named.get(b"origin")
    if origin is None or (upstream and upstream.origins and origin not in upstream.origins):
        return None
    return origin.decode("latin-1")


def add_cors(lines: bytes, origin: bytes) -> tuple[bytes, bytes]:
    """The upstream's lines without its own policy, and our lines: this proxy is the origin's
    peer, and a browser refuses two answers."""
    kept = b"".join(_UPSTREAM_LINES.split(lines)[::2])
    own = (
        b"Access-Control-Allow-Origin: %b\r\nAccess-Control-Expose-Headers: %b\r\nVary: Origin\r\n"
    ) % (origin, EXPOSED_HEADERS.encode())
    return kept, own
