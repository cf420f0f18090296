"""A stream that breaks: through a whole gateway, it never looks as if it had ended well.

The first byte says how the stream is framed and cut; the rest is what the upstream said of it.
"""

from __future__ import annotations

import logging

from fuzz.target import Target, must
from tests.http1.simulation import MAX_PIECE
from tests.server.gateway.simulated_gateway import TOKEN, Planned, Received, SimulatedGateway

logging.getLogger("llm_proxy").setLevel(logging.ERROR)
ERROR = b"event: error\ndata: {"
HEADS = (
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 100000\r\n",
    b"",
    b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
)


def run(data: bytes) -> None:
    how, body = (data[0] if data else 0), data[1:]
    framing, piece = HEADS[how & 3], (how >> 3) * 3 + 1
    answer, link_end = _relay(b"1.0" if how & 4 else b"1.1", framing, body, piece=piece)
    must(not answer.is_complete, "a broken stream that ends like a whole one")
    got, separator, _ = answer.body.rpartition(ERROR)
    if not separator:
        got = answer.body
    must(got == body, "other bytes than the upstream's")
    if separator:
        is_between = not body or body.endswith((b"\n\n", b"\r\n\r\n"))
        must(is_between, "an error event in the middle of another one")
        must(b"gzip" not in framing, "an error event among compressed ones")
        must(b"Content-Length" not in framing, "an error event that counts as announced bytes")
    must(link_end, "a client that is left waiting")


def _relay(version: bytes, framing: bytes, body: bytes, *, piece: int) -> tuple[Received, str]:
    world = SimulatedGateway(breaker_failures=1000, max_concurrent=0)
    try:
        client = world.connect()
        raw = b"GET /v1/models HTTP/%b\r\nHost: a\r\nX-Request-ID: r\r\n" % version
        raw += b"Authorization: Bearer %b\r\n\r\n" % TOKEN
        client.plan(Planned(id=b"r", method=b"GET", raw=raw))
        client.send(len(raw), MAX_PIECE)
        world.loop.do(world.loop.dials[0].accept)
        (link,) = world.loop.links
        link.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + framing + b"\r\n")
        link.piece = piece
        if b"chunked" in framing:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        link.send(body)
        link.reset()
        world.timers.advance(0.25)
        must(not world.loop.errors, f"something was raised: {world.loop.errors}")
        (record,) = world.records.all
        must(record.truncated and record.error_code, "a record that calls it whole")
        (answer,) = client.answers()
        return answer, client.link.end
    finally:
        world.close()


TARGET = Target(
    covers=("llm_proxy.server.gateway.exchange", "llm_proxy.http1.connection"),
    run=run,
    words=(b"data: ", b"\n\n", b"\r\n\r\n", b"\r", b"\n", b"event: error\n", b"0\r\n\r\n"),
    max_bytes=200,
    seeds=(
        b"\x00data: a\n\n",
        b"\x01data: a\n\nda",
        b"\x02data: a\r\n\r\n",
        b"\x06data: a\n",
        b"\x1fdata: a\n\n",
        b"\x00",
    ),
)
