"""Asking a proxy for a tunnel: CONNECT, RFC 9110 section 9.3.6."""

from __future__ import annotations

from typing import Final

from llm_proxy.address import authority
from llm_proxy.http1.connection import UpstreamError
from llm_proxy.http1.opening import Opening
from llm_proxy.http1.origin import Origin, Proxy

MAX_HEAD_BYTES: Final = 16384


async def open_tunnel(opening: Opening, origin: Origin, proxy: Proxy) -> None:
    """From here on the connection is one to the origin. Raises UpstreamError, or OSError."""
    opening.write(_request(origin, proxy))
    try:
        status = _status(await opening.read_head(MAX_HEAD_BYTES))
    except ValueError as exc:
        raise _failure(f"The proxy {proxy} did not answer CONNECT in HTTP/1.1: {exc}.") from exc
    if 200 <= status < 300:
        return
    if status == 407:
        hint = "wants credentials" if proxy.authorization is None else "refuses the credentials"
        raise _failure(f"The proxy {proxy} {hint} (407); see HTTPS_PROXY and HTTP_PROXY.")
    raise _failure(f"The proxy {proxy} answered {status} to CONNECT, so there is no tunnel.")


def _failure(message: str) -> UpstreamError:
    return UpstreamError("upstream_unreachable", message)


def _request(origin: Origin, proxy: Proxy) -> bytes:
    target = authority(origin.host, origin.port)
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.authorization is not None:
        lines.append(f"Proxy-Authorization: {proxy.authorization.reveal()}")
    return "\r\n".join([*lines, "", ""]).encode()


def _status(head: bytes) -> int:
    """Of the lines after the first none matters: a 2xx has no body, whatever they say."""
    version, _, rest = head.partition(b"\r\n")[0].partition(b" ")
    status = rest[:3]
    is_status = len(status) == 3 and status.isdigit() and rest[3:4] in (b"", b" ")
    if version not in (b"HTTP/1.1", b"HTTP/1.0") or not is_status:
        raise ValueError("its status line is malformed")
    return int(status)
