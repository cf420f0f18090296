"""The management API over HTTP, typed."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, islice
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

import llm_proxy
from llm_proxy import address
from llm_proxy.audit import AuditRecord
from llm_proxy.errors import LLMProxyError, NotAuthorised, NotFound, Unreachable
from llm_proxy.manage.objects import AuditReport, NewToken, Project, RevokedTokens, Token
from llm_proxy.secrets import Secret, token_digest

T = TypeVar("T")

# A change is answered when every worker obeys it, which the server gives each 5 s for.
_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
_LONG_TIMEOUT = httpx.Timeout(600.0, connect=5.0)
_PAGE = 1000


class ManagementClient:
    """Use it as a context manager. Every method raises LLMProxyError or a kind of it."""

    def __init__(
        self,
        base_url: str,
        token: Secret,
        *,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`base_url` may be `unix:/PATH`, too."""
        self._base_url = base_url.rstrip("/")
        path = base_url.removeprefix("unix:")
        if path != base_url:
            transport = transport or httpx.HTTPTransport(uds=path, verify=_trusted_roots(base_url))
        self._http = httpx.Client(
            base_url=self._base_url if path == base_url else "http://localhost",
            headers={
                "Authorization": f"Bearer {token.reveal()}",
                "User-Agent": f"llm-proxy/{llm_proxy.__version__}",
            },
            timeout=_TIMEOUT,
            follow_redirects=False,  # the token goes nowhere else
            trust_env=not is_loopback(base_url),  # no proxy between a machine and itself
            verify=_trusted_roots(base_url),
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.close()

    def list_projects(self) -> list[Project]:
        return self._all("/manage/projects", {}, Project)

    def get_project(self, project_id: str) -> Project:
        return self._ask("GET", _path("projects", project_id), Project)

    def create_project(self, fields: Mapping[str, Any]) -> Project:
        return self._ask("POST", "/manage/projects", Project, fields)

    def update_project(self, project_id: str, fields: Mapping[str, Any]) -> Project:
        return self._ask("PATCH", _path("projects", project_id), Project, fields)

    def delete_project(
        self, project_id: str, *, force: bool = False, cancel_running: bool = False
    ) -> None:
        query = {"force": force, "cancel_running": cancel_running}
        self._send("DELETE", _path("projects", project_id), params=_flags(query))

    def revoke_project_tokens(
        self, project_id: str, *, cancel_running: bool = False
    ) -> RevokedTokens:
        path = _path("projects", project_id, "tokens", "revoke")
        fields = {"cancel_running": True} if cancel_running else None
        return self._ask("POST", path, RevokedTokens, fields)

    def list_tokens(
        self, *, project_id: str | None = None, active_only: bool = False
    ) -> list[Token]:
        query = {"active_only": "true"} if active_only else {}
        if project_id is not None:
            query["project_id"] = project_id
        return self._all("/manage/tokens", query, Token)

    def get_token(self, token_id: str) -> Token:
        return self._ask("GET", _path("tokens", token_id), Token)

    def find_token(self, token: Secret) -> Token:
        """By its digest: the token itself is never sent."""
        digest = token_digest(token.reveal().encode()).hex()
        found = self._all("/manage/tokens", {"digest": digest}, Token)
        if not found:
            raise NotFound("the server doesn't know this token; it was mistyped or rotated away")
        return found[0]

    def create_token(self, fields: Mapping[str, Any]) -> NewToken:
        return self._ask("POST", "/manage/tokens", NewToken, fields)

    def update_token(self, token_id: str, fields: Mapping[str, Any]) -> Token:
        return self._ask("PATCH", _path("tokens", token_id), Token, fields)

    def revoke_token(self, token_id: str, *, cancel_running: bool = False) -> None:
        query = {"cancel_running": cancel_running}
        self._send("DELETE", _path("tokens", token_id), params=_flags(query))

    def rotate_token(self, token_id: str, *, grace_s: int = 0) -> NewToken:
        fields = {"grace_seconds": grace_s}
        return self._ask("POST", _path("tokens", token_id, "rotate"), NewToken, fields)

    def audit_records(
        self, filters: Mapping[str, str], *, most: int | None
    ) -> Iterator[AuditRecord]:
        """The newest first, fetched as they are taken."""
        pages = self._pages("/manage/audit", filters, AuditRecord, size=min(most or _PAGE, _PAGE))
        return islice(chain.from_iterable(pages), most)

    def get_audit_record(self, record_id: str) -> AuditRecord:
        return self._ask("GET", _path("audit", record_id), AuditRecord)

    def verify_audit(self) -> AuditReport:
        """May take a while: every record is looked at."""
        answer = self._send("GET", "/manage/audit/verify", timeout=_LONG_TIMEOUT)
        return self._decoded(answer, AuditReport)

    def _all(self, path: str, query: Mapping[str, str], kind: type[T]) -> list[T]:
        return list(chain.from_iterable(self._pages(path, query, kind)))

    def _pages(
        self, path: str, query: Mapping[str, str], kind: type[T], *, size: int = _PAGE
    ) -> Iterator[list[T]]:
        """Every page of a list."""
        cursor = None
        while True:
            params = {**query, "limit": str(size), **({"cursor": cursor} if cursor else {})}
            answer = self._send("GET", path, params=params)
            yield self._decoded(answer, list[kind])  # type: ignore[valid-type]
            following = answer.links.get("next", {}).get("url", "")
            before, cursor = cursor, httpx.URL(following).params.get("cursor")
            if cursor in (None, before):
                return

    def _ask(
        self, method: str, path: str, kind: type[T], fields: Mapping[str, Any] | None = None
    ) -> T:
        return self._decoded(self._send(method, path, fields=fields), kind)

    def _send(
        self,
        method: str,
        path: str,
        *,
        fields: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        timeout: httpx.Timeout = _TIMEOUT,
    ) -> httpx.Response:
        headers = {} if fields is None else {"Content-Type": "application/json"}
        content = None if fields is None else msgspec.json.encode(fields)
        with self._failures_translated():
            answer = self._http.request(
                method, path, content=content, headers=headers, params=params, timeout=timeout
            )
        if not answer.is_success:
            raise self._failure(answer)
        return answer

    @contextmanager
    def _failures_translated(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ReadTimeout, httpx.WriteTimeout) as exc:
            raise Unreachable(
                f"the server at {self._base_url} didn't answer in time; "
                "it may have done what was asked, so look before you repeat it"
            ) from exc
        except httpx.TransportError as exc:
            raise Unreachable(
                f"no server can be reached at {self._base_url} ({exc}); start one with "
                "`llm-proxy server start`, or name another with --manage-api-base-url"
            ) from exc
        except (httpx.InvalidURL, httpx.HTTPError) as exc:
            raise LLMProxyError(f"the request to {self._base_url} failed: {exc}") from exc

    def _decoded(self, answer: httpx.Response, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise self._stranger(answer) from exc

    def _failure(self, answer: httpx.Response) -> LLMProxyError:
        message = _message_in(answer)
        if message is None:
            return self._stranger(answer)
        if answer.status_code == 401:
            advice = "check --management-token or MANAGEMENT_TOKEN"
            reason = message.rstrip(".")
            return NotAuthorised(f"the server refused the management token: {reason}; {advice}")
        kinds = {403: NotAuthorised, 404: NotFound}
        return kinds.get(answer.status_code, LLMProxyError)(message)

    def _stranger(self, answer: httpx.Response) -> LLMProxyError:
        kinds = {401: NotAuthorised, 403: NotAuthorised, 404: NotFound}
        return kinds.get(answer.status_code, LLMProxyError)(
            f"{self._base_url} answered {answer.status_code} in a way llm-proxy's management API "
            "doesn't; check --manage-api-base-url"
        )


def _trusted_roots(url: str) -> ssl.SSLContext:
    """Loading the roots takes longer than a request, and plain HTTP has no use for them."""
    if url.startswith("https:"):
        return httpx.create_ssl_context()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody


def is_loopback(url: str) -> bool:
    if url.startswith("unix:"):
        return True
    return address.is_loopback(httpx.URL(url).host)


def _path(*parts: str) -> str:
    return "/manage/" + "/".join(quote(part, safe="") for part in parts)


def _flags(values: Mapping[str, bool]) -> dict[str, str]:
    """As query parameters: those that are true."""
    return {name: "true" for name, value in values.items() if value}


class _Error(msgspec.Struct):
    code: str
    message: str


class _Envelope(msgspec.Struct):
    """What only llm-proxy sends: an upstream's own errors lack one of these."""

    error: _Error
    request_id: str


def _message_in(answer: httpx.Response) -> str | None:
    try:
        return msgspec.json.decode(answer.content, type=_Envelope).error.message
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
