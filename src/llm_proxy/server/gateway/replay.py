"""Whether a request that got no answer may be sent again, and when."""

from __future__ import annotations

from typing import Final

from llm_proxy.http1.connection import UpstreamConnection, UpstreamError
from llm_proxy.http1.retry import Retries
from llm_proxy.server.gateway.request_head import RequestHead

_IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))


def wait_before_replay(
    head: RequestHead,
    sent: bytes,
    connection: UpstreamConnection,
    *,
    error: UpstreamError,
    tries: int,
    retries: Retries,
) -> float | None:
    """Seconds; None: it must not be sent again (RFC 9110 section 9.2.2), or was often enough.

    `sent` is all that went out over the connection for this request.
    """
    if not error.is_untouched:
        return None
    is_repeatable = head.method in _IDEMPOTENT or b"idempotency-key" in head.named
    if not is_repeatable and connection.has_delivered(len(sent)):
        return None
    if connection.is_reused:
        return 0.0  # it was closed for being idle, just as it was used again
    return retries.delay(tries)
