"""The proxy's own account of a request: `Server-Timing: proxy;dur=0.1, upstream;dur=12` (ms)."""

from __future__ import annotations

from typing import Final

from llm_proxy.benchmark.samples import TICKS_PER_MS

_NAMES: Final = (b"\nServer-Timing:", b"\nserver-timing:")
_PROXY: Final = b"proxy;dur="
_UPSTREAM: Final = b"upstream;dur="


def read_server_timing(lines: bytes) -> tuple[int, int] | None:
    """Ticks in the proxy and in the upstream, of header lines; None unless it tells both."""
    for name in _NAMES:
        start = lines.find(name)
        while start >= 0:  # the upstream's own may stand before the proxy's
            end = lines.find(b"\r", start)
            proxy = _duration(lines, _PROXY, start, end)
            upstream = _duration(lines, _UPSTREAM, start, end)
            if proxy is not None and upstream is not None:
                return proxy, upstream
            start = lines.find(name, start + 1)
    return None


def _duration(lines: bytes, name: bytes, start: int, end: int) -> int | None:
    begin = lines.find(name, start, end)
    if begin < 0:
        return None
    begin += len(name)
    comma = lines.find(b",", begin, end)
    try:
        ms = float(lines[begin : end if comma < 0 else comma].partition(b";")[0])
    except ValueError:
        return None
    return int(ms * TICKS_PER_MS) if 0 <= ms < 1e9 else None
