"""Asking a server from outside how it is: /health and /ready."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from llm_proxy.address import is_loopback
from llm_proxy.errors import Unreachable
from llm_proxy.server.local_server import LocalServer

_TIMEOUT_S = 5.0
_LARGEST_ANSWER = 1 << 20  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    status_code: int
    content: dict[str, Any]  # empty when the answer isn't a JSON object

    @property
    def passes(self) -> bool:
        return self.status_code == 200

    def summary(self) -> str:
        words = [str(self.content.get("status", f"HTTP {self.status_code}"))]
        checks = self.content.get("checks")
        if isinstance(checks, dict):
            words += [f"{name}: {result}" for name, result in checks.items() if name != "upstreams"]
        return ", ".join(words)

    def open_circuits(self) -> list[str]:
        """A line for each api whose upstream fails; those that are well aren't worth a word."""
        checks = self.content.get("checks")
        upstreams = checks.get("upstreams") if isinstance(checks, dict) else None
        if not isinstance(upstreams, dict):
            return []
        return [
            f"{api}: circuit {str(told['circuit']).replace('_', '-')} "
            f"({told.get('last_failure')}, {told.get('last_failure_at')})"
            for api, told in upstreams.items()
            if isinstance(told, dict) and told.get("circuit", "closed") != "closed"
        ]


def probe(url: str, path: str) -> Probe:
    """Raises Unreachable when nobody answers in HTTP."""
    if url.startswith("unix:"):
        return probe_local(LocalServer(address=url), path)
    # What HTTP_PROXY names can't reach this machine's own addresses.
    proxies: dict[str, str] | None = {} if is_loopback(urlsplit(url).hostname or "") else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    try:
        with opener.open(url + path, timeout=_TIMEOUT_S) as answer:
            return _read(answer.status, answer.read(_LARGEST_ANSWER))
    except urllib.error.HTTPError as exc:
        with exc:
            return _read(exc.code, exc.read(_LARGEST_ANSWER))
    except (OSError, http.client.HTTPException) as exc:
        raise _unreachable(url, exc) from exc


def probe_local(server: LocalServer, path: str) -> Probe:
    """Like `probe`, however that server listens."""
    connection = server.connection(timeout_s=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return _read(answer.status, answer.read(_LARGEST_ANSWER))
    except (OSError, http.client.HTTPException) as exc:
        raise _unreachable(server.url, exc) from exc
    finally:
        connection.close()


def _unreachable(url: str, exc: Exception) -> Unreachable:
    reason = getattr(exc, "reason", exc)  # of urllib's errors
    reason = getattr(reason, "strerror", None) or str(reason) or type(exc).__name__
    return Unreachable(
        f"no server answers at {url} ({reason}); "
        "is it running? `llm-proxy server status` tells, or name another with --url"
    )


def _read(status_code: int, body: bytes) -> Probe:
    try:
        content = msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        content = {}
    return Probe(status_code=status_code, content=content)
