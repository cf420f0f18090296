"""Answers that the gateway makes itself: refusals, preflights, errors inside a stream."""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from llm_proxy.errors import Refusal

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
EXPOSED_HEADERS: Final = (
    "LLM-Proxy-Request-ID, X-Request-ID, Server-Timing, Retry-After, "
    "RateLimit, RateLimit-Policy, openai-processing-ms"
)
_PREFLIGHT_HEADERS: Final = "Authorization, Content-Type, X-Requested-With"


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _common(request_id: str, *, keeps_alive: bool) -> dict[str, str]:
    return {
        "Date": formatdate(usegmt=True),
        "Via": "1.1 llm-proxy",
        "LLM-Proxy-Request-ID": request_id,
        "X-Request-ID": request_id,
        "Connection": "keep-alive" if keeps_alive else "close",
    }


def cors_headers(origin: str) -> dict[str, str]:
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Expose-Headers": EXPOSED_HEADERS,
        "Vary": "Origin",
    }


def refusal_answer(
    refusal: Refusal, request_id: str, *, method: bytes, origin: str | None, keeps_alive: bool
) -> tuple[bytes, bytes]:
    """Head and body, which is empty for HEAD."""
    body = refusal.envelope(request_id)
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **_common(request_id, keeps_alive=keeps_alive),
        **(cors_headers(origin) if origin else {}),
        **refusal.headers,
    }
    return _head(refusal.status_code, headers), b"" if method == b"HEAD" else body


def preflight_answer(
    origin: str, request_id: str, *, methods: str, asked_headers: str | None, keeps_alive: bool
) -> bytes:
    """The answer to a CORS preflight, by the Fetch standard."""
    headers = {
        **_common(request_id, keeps_alive=keeps_alive),
        **cors_headers(origin),
        "Access-Control-Allow-Methods": methods,
        "Access-Control-Allow-Headers": asked_headers or _PREFLIGHT_HEADERS,
        "Access-Control-Max-Age": "86400",
    }
    return _head(204, headers)


def stream_error_event(refusal: Refusal, request_id: str) -> bytes:
    """The end of a broken SSE stream: both the OpenAI and the Anthropic SDKs raise on it."""
    return b"event: error\ndata: %b\n\n" % refusal.envelope(request_id)
