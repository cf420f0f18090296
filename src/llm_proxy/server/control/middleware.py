"""Around every request: its id, the management token, and an envelope for what fails."""

from __future__ import annotations

import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_proxy.errors import Refusal
from llm_proxy.secrets import Secret
from llm_proxy.server.control.answers import refusal_answer, refusal_for

_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


class RequestEnvelope:
    """Outermost: gives each request an id and turns whatever is raised inside into an answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        request.state.request_id = _request_id(request.headers)
        has_started = False

        async def send_with_id(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                MutableHeaders(scope=message)["X-Request-ID"] = request.state.request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            return  # nobody is left to answer
        except Exception as exc:
            if has_started:
                raise
            answer = refusal_answer(refusal_for(exc, request), request)
            await answer(scope, receive, send_with_id)


class ManagementAuthentication:
    """Nothing below /manage is told to anybody without the management token."""

    def __init__(self, app: ASGIApp, *, token: Secret) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and is_management(scope["path"]):
            self._check(Headers(scope=scope))
        await self._app(scope, receive, send)

    def _check(self, headers: Headers) -> None:
        scheme, _, candidate = headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not candidate.strip():
            problem = "send the management token as: Authorization: Bearer MANAGEMENT_TOKEN"
        elif not self._token.matches(candidate.strip()):
            problem = "this isn't the management token of this server"
        else:
            return
        challenge = {"WWW-Authenticate": 'Bearer realm="llm-proxy management"'}
        raise Refusal("invalid_management_token", problem, headers=challenge)


def is_management(path: str) -> bool:
    return path == "/manage" or path.startswith("/manage/")


def _request_id(headers: Headers) -> str:
    # The gateway adds its own last when the client's is not one to repeat.
    sent = (headers.getlist("X-Request-ID") or [""])[-1]
    return sent if _SANE_ID.fullmatch(sent) else str(uuid.uuid4())
