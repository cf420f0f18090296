"""The way out: answers to CONNECT, and the proxy variables, which only ConfigError may refuse."""

from __future__ import annotations

import asyncio

from fuzz.target import Target, must
from llm_proxy.errors import ConfigError
from llm_proxy.http1.connect_tunnel import MAX_HEAD_BYTES, open_tunnel
from llm_proxy.http1.connection import UpstreamError
from llm_proxy.http1.egress import read_egress
from llm_proxy.http1.opening import Opening
from llm_proxy.http1.origin import Origin, Proxy
from llm_proxy.secrets import Secret
from tests.http1.simulation import Link, SimulatedLoop

LOOP = SimulatedLoop()
PASSWORD = "pass-1234-word"


def run(data: bytes) -> None:
    asyncio.set_event_loop(LOOP)
    piece, answer = (data[0] + 1 if data else 1), data[1:]
    whole = _connect(answer, piece=65536)
    in_pieces = _connect(answer, piece=piece)
    has_more = answer.find(b"\r\n\r\n") + 4 < len(answer)
    is_surplus = whole != in_pieces == "open" and has_more
    is_same = (whole == "open") == (in_pieces == "open")
    must(is_same or is_surplus, "cut elsewhere it is another answer")
    if whole == "open":
        line, _, rest = answer.partition(b"\r\n")
        must(line.startswith((b"HTTP/1.1 2", b"HTTP/1.0 2")), "a tunnel that nobody opened")
        must(answer.endswith(b"\r\n\r\n") and b"\r\n\r\n" not in answer[:-4], "bytes too many")
        must(len(line) + len(rest) < MAX_HEAD_BYTES, "a head without limit")
    _check_variables(data.decode("latin-1"))


def _connect(answer: bytes, *, piece: int) -> str:
    proxy = Proxy(host="192.0.2.8", port=3128, authorization=Secret(f"Basic {PASSWORD}"))
    opening = Opening()
    link = Link(LOOP, opening)
    LOOP.do(link.open)
    task = LOOP.create_task(open_tunnel(opening, Origin(host="a.test", port=443), proxy))
    LOOP.settle()
    must(
        link.received.startswith(b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n"), "CONNECT"
    )
    link.piece = piece
    link.send(answer)
    link.hang_up()
    opening.abort()
    LOOP.settle()
    must(task.done() and not LOOP.errors, "it waits for ever, or something was raised")
    error = task.exception()
    if error is None:
        return "open"
    must(isinstance(error, UpstreamError | OSError), f"{error!r}")
    must(PASSWORD not in str(error), "an error that tells the password")
    return str(error)


def _check_variables(text: str) -> None:
    value, _, direct = text.partition("\n")
    for name in ("HTTPS_PROXY", "http_proxy"):
        try:
            egress = read_egress({name: value, "NO_PROXY": direct})
        except ConfigError as exc:
            must(name in str(exc) or "NO_PROXY" in str(exc), f"an error that names none: {exc}")
            continue
        for scheme in ("http", "https"):
            egress.proxy_for(scheme, "api.openai.com", 443)
            must(egress.proxy_for(scheme, "127.0.0.1", 80) is None, "this machine by a proxy")
            must(egress.proxy_for(scheme, "localhost", 80) is None, "this machine by a proxy")


TARGET = Target(
    covers=("llm_proxy.http1.connect_tunnel", "llm_proxy.http1.opening", "llm_proxy.http1.egress"),
    run=run,
    words=(
        *(b"HTTP/1.1 200 Connection established\r\n\r\n", b"HTTP/1.0 200\r\n", b"407", b"\r\n\r\n"),
        *(
            b"\r\n",
            b"http://",
            b"https://",
            b"user:pass@",
            b"[::1]:3128",
            b":3128",
            b"\n",
            b"*",
            b"%",
        ),
        *(b".a.b", b"10.0.0.0/8", b",", b"localhost"),
    ),
    max_bytes=300,
    seeds=(
        b"\x00HTTP/1.1 200 Connection established\r\nVia: 1\r\n\r\n",
        b"\x02HTTP/1.0 407 Proxy Authentication Required\r\nContent-Length: 1\r\n\r\na",
        b"\x05HTTP/1.1 200\r\n\r\n\x16\x03",
        b"http://user:p%40ss@proxy.test:3128\n.local,10.0.0.0/8,a.b:443,*",
        b"https://[::1]:3128\nlocalhost",
    ),
)
