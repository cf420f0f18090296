"""The HTTP client of one target, and its failures as sentences."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import httpx
import msgspec

import llm_proxy
from llm_proxy import address
from llm_proxy.chat import failures
from llm_proxy.chat.problem import Problem, read_problem
from llm_proxy.chat.target import Target
from llm_proxy.errors import ConfigError, LLMProxyError

IDLE_S: Final = 300.0  # a reasoning model may be silent for long; the whole has no limit
_CONNECT_S: Final = 5.0
_LARGEST_BODY: Final = 64 << 20
_LARGEST_REFUSAL: Final = 64 << 10
# Of OpenSSL's message, what a person may understand.
_CERTIFICATE: Final = re.compile(r"CERTIFICATE_VERIFY_FAILED\] (?:[^:]*: )?(.*?)\.?(?: \(_ssl|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request, at the first of its places that has it."""

    method: str
    urls: list[str]
    headers: dict[str, str]
    model: str | None = None  # what a 404 may be about
    body: dict[str, Any] | None = None


class Refused(LLMProxyError):
    """An error answer; `explained` is what to tell a person."""

    def __init__(self, status: int, problem: Problem, explained: LLMProxyError) -> None:
        super().__init__(str(explained))
        self.status = status
        self.problem = problem
        self.explained = explained


class HttpClient:
    """Use it as a context manager."""

    def __init__(
        self,
        target: Target,
        *,
        idle_s: float = IDLE_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.target = target
        self._idle_s = idle_s
        verify = target.tls or _trusted_roots(target.base_url)
        if transport is None and target.socket is not None:
            transport = httpx.AsyncHTTPTransport(uds=target.socket, verify=verify)
        try:
            self._http = httpx.AsyncClient(
                # Compressed events would come in clots.
                headers={
                    "User-Agent": f"llm-proxy/{llm_proxy.__version__}",
                    "Accept-Encoding": "identity",
                },
                timeout=httpx.Timeout(idle_s, connect=_CONNECT_S),
                follow_redirects=False,  # the token goes nowhere else
                trust_env=not _is_local(target),  # no proxy between a machine and itself
                verify=verify,
                transport=transport,
            )
        except (ImportError, ValueError, httpx.InvalidURL) as exc:  # SOCKS; other strange proxies
            raise failures.no_way(target.base_url, str(exc).partition(". ")[0]) from exc
        self._found: dict[str, str] = {}  # first url: the one that was there

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    @asynccontextmanager
    async def answer_to(self, call: Call) -> AsyncIterator[httpx.Response]:
        """A good answer whose body is still to be read. Raises Refused, or what explains."""
        first = call.urls[0]
        known = self._found.get(first)
        urls = call.urls if known is None else [known]
        refusal: Refused | None = None
        for url in urls:
            with self._failures_translated():
                request = self._request(call, url)
                answer = await self._send(request)
                try:
                    if answer.is_success:
                        self._found[first] = url
                        yield answer
                        return
                    refused = await self._refusal(answer, call, url)
                finally:
                    await answer.aclose()
            was_there = refused.status != 404 or _is_of_the_model(refused, call)
            if refusal is None or was_there:
                refusal = refused
            if was_there:
                break
        assert refusal is not None
        raise refusal

    async def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            return await self._http.send(request, stream=True)
        except (httpx.RemoteProtocolError, httpx.ReadError) as exc:
            reason = str(exc).rstrip(".") or "the connection was reset"
            raise failures.no_answer(self.target.base_url, reason) from exc

    async def read_all(self, answer: httpx.Response, most: int = _LARGEST_BODY) -> bytes:
        body = bytearray()
        async for piece in answer.aiter_bytes():
            body += piece
            if len(body) > most:
                raise LLMProxyError(f"the answer of {answer.url} is larger than {most >> 20} MiB")
        return bytes(body)

    def _request(self, call: Call, url: str) -> httpx.Request:
        headers = call.headers
        content = None
        if call.body is not None:
            content = msgspec.json.encode(call.body)
            headers = {**headers, "Content-Type": "application/json"}
        return self._http.build_request(call.method, url, headers=headers, content=content)

    async def _refusal(self, answer: httpx.Response, call: Call, url: str) -> Refused:
        body = bytearray()
        with suppress(httpx.TransportError, httpx.DecodingError):  # the status says enough
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > _LARGEST_REFUSAL:
                    break
        problem = read_problem(bytes(body))
        hide = self.target.hide_token
        problem = Problem(message=hide(problem.message), code=problem.code)
        headers = {name: hide(value) for name, value in answer.headers.items()}
        explained = failures.refused(
            answer.status_code, problem, headers, url=url, model=call.model
        )
        return Refused(answer.status_code, problem, explained)

    @contextmanager
    def _failures_translated(self) -> Iterator[None]:
        base_url = self.target.base_url
        try:
            yield
        except httpx.ConnectTimeout as exc:
            raise failures.unreachable(base_url, f"no connection in {_CONNECT_S:.0f} s") from exc
        except httpx.TimeoutException as exc:
            raise failures.silent(base_url, self._idle_s) from exc
        except httpx.ProxyError as exc:
            raise failures.no_way(base_url, str(exc)) from exc
        except httpx.ConnectError as exc:
            if found := _CERTIFICATE.search(str(exc)):
                raise failures.untrusted(base_url, found[1]) from exc
            raise failures.unreachable(base_url, _reason(exc)) from exc
        except httpx.DecodingError as exc:
            raise failures.not_understood(base_url, str(exc)) from exc
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as exc:
            raise LLMProxyError(f"{base_url} can't be asked: {exc}") from exc
        except httpx.TransportError as exc:
            raise failures.broken_off() from exc


def _is_of_the_model(refused: Refused, call: Call) -> bool:
    problem = refused.problem
    return (
        refused.status == 404
        and call.model is not None
        and not problem.is_of_the_path
        and call.model in problem.message
    )


def _is_local(target: Target) -> bool:
    return target.socket is not None or address.is_loopback(httpx.URL(target.base_url).host)


def _trusted_roots(url: str) -> ssl.SSLContext:
    """Loading the roots takes longer than a request, and plain HTTP has no use for them."""
    if url.startswith("https:"):
        try:
            return httpx.create_ssl_context()
        except OSError as exc:
            raise ConfigError(
                f"the roots of SSL_CERT_FILE or SSL_CERT_DIR can't be read ({exc.strerror}); "
                "name a file of certificates, or unset it"
            ) from exc
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody


def _reason(exc: BaseException) -> str:
    """What the system said, not that all attempts failed."""
    cause: BaseException | None = exc
    said = str(exc) or type(exc).__name__
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        if isinstance(cause, ConnectionError) and cause.errno:
            said = os.strerror(cause.errno)
        elif isinstance(cause, OSError) and cause.strerror:
            said = cause.strerror
        cause = cause.__cause__ or cause.__context__
    return said
