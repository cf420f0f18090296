"""Around every management request: its audit record, durable before the answer goes out."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_proxy.audit import Outcome, clean
from llm_proxy.errors import Conflict, Refusal, StoreError
from llm_proxy.server.control.audit_trail import AuditTrail, Draft, current_draft, subject_of
from llm_proxy.server.control.middleware import is_management

_UNKNOWN_ACTION = "management.read"  # only ever told when it was denied


class Auditing:
    """Inside RequestEnvelope, which answers what is raised; around the authentication."""

    def __init__(self, app: ASGIApp, *, trail: AuditTrail) -> None:
        self._app = app
        self._trail = trail

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_management(scope["path"]):
            await self._app(scope, receive, send)
            return
        draft = _draft_of(scope)
        reset = current_draft.set(draft)

        async def send_when_recorded(message: Message) -> None:
            if message["type"] == "http.response.start":
                await self._finish(draft, "success")
            await send(message)

        try:
            await self._app(scope, receive, send_when_recorded)
        except ClientDisconnect:
            raise  # before it had said what it wants
        except Exception as exc:
            await self._fail(draft, exc)
            raise
        finally:
            current_draft.reset(reset)

    async def _finish(self, draft: Draft, outcome: Outcome, reason: str | None = None) -> None:
        if draft.is_written:
            await self._trail.flush()
        elif draft.action != _UNKNOWN_ACTION:
            draft.is_written = True
            await self._trail.append(draft.entry(outcome, reason))

    async def _fail(self, draft: Draft, exc: Exception) -> None:
        outcome, reason = _outcome_of(exc)
        if reason == "invalid_management_token":
            draft.action = "auth.failed"
            draft.is_written = True
            await self._trail.deny(draft.entry(outcome, reason))
            return
        if isinstance(exc, Refusal) and _is_name(field := exc.details.get("field")):
            draft.details["field"] = field
        try:
            await self._finish(draft, outcome, reason)
        except StoreError:
            if not isinstance(exc, StoreError):
                raise  # else that is what the client is told anyway


def _is_name(field: object) -> bool:
    """Of a field of ours. What a client makes up may be a secret in the wrong place."""
    return isinstance(field, str) and field.replace("_", "").replace(".", "").isalpha()


def _outcome_of(exc: Exception) -> tuple[Outcome, str]:
    """With the code that the client gets."""
    if isinstance(exc, Refusal):
        if exc.status_code >= 500:
            return "error", exc.code
        return ("denied" if exc.status_code in (401, 403) else "failure"), exc.code
    if isinstance(exc, HTTPException):
        codes = {404: "not_found", 405: "method_not_allowed"}
        return "failure", codes.get(exc.status_code, "invalid_request")
    if isinstance(exc, Conflict):
        return "failure", "conflict"
    return "error", "store_unavailable" if isinstance(exc, StoreError) else "internal_error"


def _draft_of(scope: Scope) -> Draft:
    headers = Headers(scope=scope)
    path = _without_tokens(clean(scope["path"]) or "")
    subject = subject_of(scope["method"], path)
    action, ids = (_UNKNOWN_ACTION, {}) if subject is None else subject
    return Draft(
        action=action,
        client_ip=_client_ip(scope, headers),
        request_id=scope["state"]["request_id"],
        method=scope["method"],
        path=path,
        user_agent=headers.get("User-Agent"),
        project_id=ids.get("project_id"),
        token_id=ids.get("token_id"),
    )


def _without_tokens(path: str) -> str:
    """Somebody may have put a token where its id belongs."""
    words = path.split("/")
    return "/".join("…" if word.startswith("sk-") or len(word) > 40 else word for word in words)


def _client_ip(scope: Scope, headers: Headers) -> str | None:
    """The gateway says it on the private socket, in a header that it lets nobody else set.

    Over TCP the peer is the client, and what it says about itself is worth nothing.
    """
    client = scope.get("client")
    if client is not None:
        return str(client[0])
    return headers.get("X-Forwarded-For", "local")
