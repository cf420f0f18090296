"""How each API presents a key, names a request and words an error."""

from __future__ import annotations

from typing import Protocol

import msgspec

from llm_proxy.benchmark.mock_answer import Refused
from llm_proxy.benchmark.mock_request import Request
from llm_proxy.secrets import Secret


class Dialect(Protocol):
    def key(self, request: Request) -> str | None:
        """The API key that the request presents, if any."""
        ...

    def headers(self, request_id: str) -> bytes:
        """Header lines that every answer has."""
        ...

    def error(self, refused: Refused, request_id: str) -> bytes:
        """The body of an error answer."""
        ...


class _OpenAI:
    _TYPES = {429: "requests", 403: "permission_error"}
    _CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}

    def key(self, request: Request) -> str | None:
        return _bearer(request)

    def headers(self, request_id: str) -> bytes:
        return (
            b"openai-version: 2020-10-01\r\n"
            b"x-ratelimit-limit-requests: 10000\r\n"
            b"x-ratelimit-remaining-requests: 9999\r\n"
            b"x-request-id: req_%s\r\n" % request_id.encode()
        )

    def error(self, refused: Refused, request_id: str) -> bytes:
        status = refused.status
        kind = "server_error" if status >= 500 else "invalid_request_error"
        error = {
            "message": refused.message,
            "type": self._TYPES.get(status, kind),
            "param": refused.param,
            "code": refused.code or self._CODES.get(status),
        }
        return msgspec.json.encode({"error": error})


class _Anthropic:
    _TYPES = {
        401: "authentication_error",
        402: "billing_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        504: "timeout_error",
        529: "overloaded_error",
    }

    def key(self, request: Request) -> str | None:
        return request.header(b"x-api-key") or _bearer(request)

    def headers(self, request_id: str) -> bytes:
        return (
            b"anthropic-organization-id: 00000000-0000-4000-8000-000000000000\r\n"
            b"anthropic-ratelimit-requests-limit: 4000\r\n"
            b"anthropic-ratelimit-requests-remaining: 3999\r\n"
            b"request-id: req_%s\r\n" % request_id.encode()
        )

    def error(self, refused: Refused, request_id: str) -> bytes:
        kind = "api_error" if refused.status >= 500 else "invalid_request_error"
        error = {"type": self._TYPES.get(refused.status, kind), "message": refused.message}
        return msgspec.json.encode(
            {"type": "error", "error": error, "request_id": f"req_{request_id}"}
        )


OPENAI: Dialect = _OpenAI()
ANTHROPIC: Dialect = _Anthropic()


def dialect_of(request: Request) -> Dialect:
    """By the path; where both APIs have the path, or neither, by Anthropic's version header."""
    path = request.path
    if path.startswith("/v1/messages"):
        return ANTHROPIC
    is_shared = not path.startswith(("/v1/chat/", "/v1/responses", "/v1/embeddings", "/v1/files"))
    return ANTHROPIC if is_shared and b"anthropic-version" in request.fields else OPENAI


def check_key(request: Request, dialect: Dialect, wanted: Secret | None) -> None:
    """Raises Refused when the request has no key, or not the one that is wanted."""
    presented = dialect.key(request)
    if not presented:
        how = "x-api-key" if dialect is ANTHROPIC else "Authorization: Bearer"
        raise Refused(401, f"You didn't provide an API key; send one in the header {how}.")
    if wanted is not None and not wanted.matches(presented):
        raise Refused(401, "The API key provided isn't the one this mock was started with.")


def _bearer(request: Request) -> str | None:
    scheme, _, key = (request.header(b"authorization") or "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else None
