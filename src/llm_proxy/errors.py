"""Every error raised on purpose, and the one envelope it reaches an HTTP client in.

LLMProxyError               exit code 1
├── ConfigError             the configuration can't be used
│   └── WrongUsage          … because of a flag: exit code 2
├── StoreError              the database can't be used
│   └── StoreUnavailable    … for now: locked, slow or gone
│       └── StoreUnreachable    … its server doesn't answer: exit code 5
├── LedgerError             what a worker spends can't be kept
├── Conflict                what is asked for contradicts what is stored
├── NotAuthorised           exit code 3
├── NotFound                exit code 4
├── Unreachable             exit code 5
└── Refusal                 an answer of our own to an HTTP client
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class LLMProxyError(Exception):
    """A failure with a message for people: one sentence that says what to do."""

    exit_code = 1


class ConfigError(LLMProxyError):
    pass


class WrongUsage(ConfigError):
    exit_code = 2


class StoreError(LLMProxyError):
    pass


class StoreUnavailable(StoreError):
    pass


class StoreUnreachable(StoreUnavailable):
    exit_code = 5


class LedgerError(LLMProxyError):
    pass


class Conflict(LLMProxyError):
    pass


class NotAuthorised(LLMProxyError):
    exit_code = 3


class NotFound(LLMProxyError):
    exit_code = 4


class Unreachable(LLMProxyError):
    exit_code = 5


# code: (status, type). The types are those that the OpenAI and Anthropic SDKs know.
REFUSALS: dict[str, tuple[int, str]] = {
    "invalid_request": (400, "invalid_request_error"),
    "param_not_allowed": (400, "invalid_request_error"),
    "origin_required": (400, "invalid_request_error"),
    "missing_token": (401, "authentication_error"),
    "invalid_token": (401, "authentication_error"),
    "token_expired": (401, "authentication_error"),
    "token_not_yet_valid": (401, "authentication_error"),
    "token_revoked": (401, "authentication_error"),
    "invalid_management_token": (401, "authentication_error"),
    "project_inactive": (403, "permission_error"),
    "no_upstream_key": (403, "permission_error"),
    "origin_not_allowed": (403, "permission_error"),
    "client_not_allowed": (403, "permission_error"),
    "insufficient_scope": (403, "permission_error"),
    "endpoint_not_allowed": (404, "not_found_error"),
    "not_found": (404, "not_found_error"),
    "method_not_allowed": (405, "invalid_request_error"),
    "request_timeout": (408, "timeout_error"),
    "conflict": (409, "invalid_request_error"),
    "body_too_large": (413, "request_too_large"),
    "url_too_long": (414, "invalid_request_error"),
    "headers_too_large": (431, "invalid_request_error"),
    "token_quota_exhausted": (429, "rate_limit_error"),
    "rate_limited": (429, "rate_limit_error"),
    "concurrency_limited": (429, "rate_limit_error"),
    "internal_error": (500, "api_error"),
    "upstream_unreachable": (502, "api_error"),
    "upstream_broken": (502, "api_error"),
    "circuit_open": (503, "overloaded_error"),
    "store_unavailable": (503, "overloaded_error"),
    "audit_unavailable": (503, "overloaded_error"),
    "limits_unavailable": (503, "overloaded_error"),
    "draining": (503, "overloaded_error"),
    "overloaded": (503, "overloaded_error"),
    "upstream_timeout": (504, "timeout_error"),
}


class Refusal(LLMProxyError):
    """An answer of our own, named by its code; `headers` go with the answer."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status_code, self.type = REFUSALS[code]
        self.message = message
        self.details = dict(details or {})
        self.headers = dict(headers or {})

    def envelope(self, request_id: str) -> bytes:
        """The JSON body that both the OpenAI and the Anthropic SDKs parse."""
        import msgspec  # here, because every command imports this module

        error = {
            "type": self.type,
            "code": self.code,
            "message": self.message,
            "details": self.details,
        }
        return msgspec.json.encode({"type": "error", "error": error, "request_id": request_id})
