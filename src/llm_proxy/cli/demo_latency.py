"""What the proxy adds to a request: the same one direct and through it, in turns."""

from __future__ import annotations

import http.client
import json
import statistics
import time
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from llm_proxy.errors import LLMProxyError

WARM_UP: Final = 20
PAIRS: Final = 300
_BODY: Final = json.dumps(
    {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "How fast are you?"}]}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedLatency:
    """Medians, in microseconds."""

    direct_us: float
    proxied_us: float

    @property
    def added_us(self) -> float:
        return self.proxied_us - self.direct_us


def measure_added_latency(direct_url: str, proxy_url: str, token: str) -> AddedLatency:
    """One connection to each, one request at a time. Raises LLMProxyError when one fails."""
    direct, proxied = (_connect(url) for url in (direct_url, proxy_url))
    try:
        for _ in range(WARM_UP):
            _time(direct, "any-key")
            _time(proxied, token)
        pairs = [(_time(direct, "any-key"), _time(proxied, token)) for _ in range(PAIRS)]
    except (OSError, http.client.HTTPException) as exc:
        raise LLMProxyError(f"a request of the measurement failed: {exc}") from exc
    finally:
        direct.close()
        proxied.close()
    return AddedLatency(
        direct_us=statistics.median(pair[0] for pair in pairs),
        proxied_us=statistics.median(pair[1] for pair in pairs),
    )


def _connect(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)


def _time(connection: http.client.HTTPConnection, key: str) -> float:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    start = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", _BODY, headers)
    response = connection.getresponse()
    response.read()
    took = time.perf_counter() - start
    if response.status != 200:
        raise LLMProxyError(f"a request of the measurement was answered {response.status}")
    return took * 1e6
