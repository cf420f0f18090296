"""Requests as bytes, made before the run: while it lasts they are only put together."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from llm_proxy import __version__
from llm_proxy.benchmark.plan import Plan, Replay, Target, Workload

_ORDERED: Final = 1_000_000  # the order of bodies repeats after as many at most


class RequestBytes:
    """Request number `n` of a run is the same for every target but for host, path and key."""

    def __init__(self, target: Target, workload: Workload) -> None:
        self._heads = [_head(target, workload, key) for key in (_credentials(target) or [b""])]
        self._tails = [_tail(workload.method, body) for body in workload.bodies]
        self._key_count = len(self._heads)

    def request(self, number: int, body: int) -> bytes:
        return self._heads[number % self._key_count] + self._tails[body]


def body_order(plan: Plan) -> Sequence[int]:
    """Which body comes when; repeats after its end."""
    if isinstance(plan.load, Replay):
        return plan.load.bodies
    order = list(range(min(len(plan.workload.bodies), _ORDERED)))
    if plan.workload.order == "shuffled":
        random.Random(plan.seed).shuffle(order)
    return order


def _credentials(target: Target) -> list[bytes]:
    scheme = f"{target.key_scheme} " if target.key_scheme else ""
    return [f"{target.key_header}: {scheme}{key.reveal()}\r\n".encode() for key in target.keys]


def _head(target: Target, workload: Workload, credential: bytes) -> bytes:
    url = urlsplit(target.base_url)
    lines = [
        f"{workload.method} {url.path}{workload.endpoint} HTTP/1.1",
        f"Host: {url.netloc.rpartition('@')[2]}",
    ]
    given = {name.lower() for name, _ in workload.headers}
    defaults = {
        "User-Agent": f"llm-proxy-benchmark/{__version__}",
        "Accept": "text/event-stream" if workload.is_stream else "*/*",
    }
    if any(workload.bodies):
        defaults["Content-Type"] = "application/json"
    lines += [f"{name}: {value}" for name, value in defaults.items() if name.lower() not in given]
    lines += [f"{name}: {value}" for name, value in workload.headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n" + credential


def _tail(method: str, body: bytes) -> bytes:
    if not body and method in ("GET", "HEAD", "DELETE", "OPTIONS"):
        return b"\r\n"
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
