"""What the control plane answers with: JSON, or the error envelope."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from llm_proxy.errors import Conflict, Refusal, StoreError

logger = logging.getLogger(__name__)

# Answers hold tokens and settings: no cache may keep them.
_HEADERS = {"Cache-Control": "no-store"}
_JSON = "application/json"


def json_answer(
    content: Any, *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    body = msgspec.json.encode(content)
    return Response(body, status, {**_HEADERS, **(headers or {})}, media_type=_JSON)


def nothing() -> Response:
    return Response(status_code=204, headers=_HEADERS)


def invalid(field: str, problem: str) -> Refusal:
    """400, naming the field."""
    return Refusal("invalid_request", f"{field} {problem}", details={"field": field})


def shortened(text: str) -> str:
    """A value that somebody sent, for a message."""
    return text if len(text) <= 60 else text[:60] + "…"


def missing(kind: str) -> Refusal:
    return Refusal("not_found", f"there is no such {kind}; list those there are for their ids")


def refusal_for(exc: Exception, request: Request) -> Refusal:
    """How a failure is told to a client; what nobody foresaw is logged, and told without detail."""
    if isinstance(exc, Refusal):
        return exc
    if isinstance(exc, HTTPException):
        return _refusal_of_router(exc, request)
    if isinstance(exc, Conflict):
        return Refusal("conflict", str(exc))
    if isinstance(exc, StoreError):
        logger.error("%s %s: %s", request.method, request.url.path, exc)
        return Refusal("store_unavailable", str(exc), headers={"Retry-After": "1"})
    request_id = request.state.request_id
    logger.error(
        "%s %s failed (request %s)", request.method, request.url.path, request_id, exc_info=exc
    )
    return Refusal("internal_error", f"llm-proxy failed; its log says why (request {request_id})")


def _refusal_of_router(exc: HTTPException, request: Request) -> Refusal:
    headers = dict(exc.headers or {})
    if exc.status_code == 404:
        return Refusal("not_found", f"there is nothing at {request.url.path}")
    if exc.status_code == 405:
        allowed = headers.get("Allow", "")
        message = f"{request.method} isn't allowed at {request.url.path}; allowed: {allowed}"
        return Refusal("method_not_allowed", message, headers=headers)
    return Refusal("invalid_request", exc.detail, headers=headers)


def refusal_answer(refusal: Refusal, request: Request) -> Response:
    body = refusal.envelope(request.state.request_id)
    headers = {**_HEADERS, **refusal.headers}
    return Response(body, refusal.status_code, headers, media_type=_JSON)
