"""One request to each target before the load: whether it can be reached, and lets us in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import sys
from typing import TYPE_CHECKING, Final

from llm_proxy.errors import LLMProxyError, NotAuthorised, Unreachable

if TYPE_CHECKING:
    import httpx

    from llm_proxy.benchmark.plan import Plan, Target

_LONGEST_MESSAGE: Final = 200
_LARGEST_ANSWER: Final = 64 * 1024  # more of it tells nothing more
_LONGEST_READING_S: Final = 10.0
_NOT_OF_SYSTEM: Final = (ssl.SSLError, socket.gaierror)  # they number their errors otherwise
# These pass, or are what is to be measured; the others would be answered to every request.
_MAY_PASS: Final = frozenset((408, 425, 429))


def look_at_targets(plan: Plan) -> None:
    """Raises Unreachable, NotAuthorised, or LLMProxyError for what each request would be told."""
    names = ("--base-url", "--direct-url")
    for option, target in zip(names, plan.targets, strict=False):
        status, message = _ask(plan, target, option)
        _judge(status, message, target, option)


def _ask(plan: Plan, target: Target, option: str) -> tuple[int, str]:
    import httpx

    try:
        return asyncio.run(_answer(plan, target))
    except (TimeoutError, httpx.TimeoutException) as exc:
        raise Unreachable(
            f"{option} {target.base_url} didn't answer within {plan.timeout_s:g} s; "
            "is it overloaded? --timeout gives it longer"
        ) from exc
    except (httpx.RequestError, httpx.InvalidURL) as exc:
        raise Unreachable(
            f"{option} {target.base_url} can't be reached ({_reason(exc)}); "
            "is it running, and is the URL right?"
        ) from exc


def _reason(exc: Exception) -> str:
    """In the words of the system, where it was the system that failed."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno and not isinstance(cause, _NOT_OF_SYSTEM):
            return os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    return str(exc) or type(exc).__name__


async def _answer(plan: Plan, target: Target) -> tuple[int, str]:
    workload = plan.workload
    async with _client(target, plan.timeout_s) as http:
        request = http.build_request(
            workload.method,
            f"{target.base_url}{workload.endpoint}",
            headers=[*workload.headers, *_credentials(target)],
            content=workload.bodies[0] or None,
        )
        # A limit of our own: that of httpx begins anew with every byte of a head.
        async with asyncio.timeout(plan.timeout_s):
            answer = await http.send(request, stream=True)
        try:
            return answer.status_code, "" if answer.is_success else await _message(answer, target)
        finally:
            await answer.aclose()


def _client(target: Target, timeout_s: float) -> httpx.AsyncClient:
    import httpx

    from llm_proxy.http1.tls import client_context

    is_tls = target.base_url.startswith("https:")
    return httpx.AsyncClient(
        trust_env=False,  # the load goes no way around either
        timeout=timeout_s,
        verify=client_context(target.ca_file) if is_tls else False,
    )


def _credentials(target: Target) -> list[tuple[str, str]]:
    if not target.keys:
        return []
    return [(target.key_header, f"{target.key_scheme} {target.keys[0].reveal()}".strip())]


async def _message(answer: httpx.Response, target: Target) -> str:
    """What an answer says of itself, on one line and without our key."""
    data = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LONGEST_READING_S):
            async for piece in answer.aiter_bytes():
                data += piece
                if len(data) > _LARGEST_ANSWER:
                    break
    from llm_proxy.cli.benchmark_command_line import without_secrets

    text = _error_message(data) or data.decode(errors="replace")
    text = without_secrets(text, target.keys)
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line[:_LONGEST_MESSAGE] or answer.reason_phrase


def _error_message(data: bytes) -> str | None:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    error = document.get("error") if isinstance(document, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else None


def _judge(status: int, message: str, target: Target, option: str) -> None:
    if status < 300:
        return
    where = f"{option} {target.base_url} answered {status}"
    if status in (401, 403):
        raise NotAuthorised(f"{where}: {message} ({_key_advice(target, option)})")
    if status < 400:
        raise LLMProxyError(f"{where}, a redirect; give the URL that it leads to")
    if status < 500 and status not in _MAY_PASS:
        raise LLMProxyError(f"{where}: {message} (so it would to every request)")
    print(f"Warning: {where}: {message}", file=sys.stderr)


def _key_advice(target: Target, option: str) -> str:
    if option == "--direct-url":
        return "name the variable with its key: --direct-key-env"
    if target.keys:
        return "is the token right, and still good?"
    return "give a token: --token, or PROXY_TOKEN"
