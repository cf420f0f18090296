"""Upstream answers that no two readers would agree on, cut, or longer than they say.

Each case shows all three sides: 502 or an aborted answer for the client, the upstream hung up on,
one record that says so; and that the client's next request gets its own answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_proxy.http1.connection import MAX_HEAD_BYTES, MAX_INFORMATIONAL

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Client, Gate, Peer

pytestmark = pytest.mark.anyio

S = b"HTTP/1.1 200 OK\r\n"
OK = S + b"Content-Length: 2\r\n\r\nok"
EVIL = S + b"Content-Length: 4\r\n\r\nevil"


async def asked(gate: Gate) -> tuple[Client, Peer]:
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    return client, peer


async def next_is_answered(gate: Gate, client: Client) -> None:
    """By another upstream connection, whatever the last one left behind."""
    await client.send(gate.request(body=b"next"))
    peer = await gate.openai.accept()
    assert (await peer.request()).endswith(b"next")
    await peer.answer(b"its own")
    assert (await client.response()).body == b"its own"


async def only_record(gate: Gate, status: int, code: str, *, truncated: bool) -> None:
    record = await gate.records.next()
    assert (record.status_code, record.error_code) == (status, code)
    assert record.truncated is truncated
    assert len(gate.records.all) == 1


def coded(value: bytes) -> bytes:
    return S + b"Transfer-Encoding: " + value + b"\r\n\r\n0\r\n\r\n"


def sized(value: bytes) -> bytes:
    return S + b"Content-Length: " + value + b"\r\n\r\nabc"


HEADS = {
    **{f"coding {value!r}": coded(value) for value in [
        b"chunked, identity", b"identity", b"identity, chunked", b"gzip", b"gzip, chunked",
        b"chunked\x0b", b"\x0bchunked", b"xchunked", b"chunked;q=1", b'"chunked"',
        b"chunked, chunked", b"chunked,", b",chunked", b"",
    ]},
    **{f"length {value!r}": sized(value) for value in [
        b"+3", b"-3", b"0x3", b"3 3", b"3,3", b"3, 4", b"3.0", b"3_0", b"", b"3\x0b", b"abc",
        b"18446744073709551619", b"9" * 5000, b"0" * 5000 + b"3",
    ]},
    "coding twice": S + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "coding in 1.0": coded(b"chunked").replace(b"1.1", b"1.0"),
    "length and coding": S + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
    "coding and length": S + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
    "two equal lengths": S + b"Content-Length: 3\r\ncontent-length: 3\r\n\r\nabc",
    "two lengths": S + b"Content-Length: 3\r\nA: b\r\nContent-Length: 4\r\n\r\nabc",
    "blank before the colon": S + b"Content-Length : 3\r\n\r\nabc",
    "folded line": S + b"A: b\r\n c\r\n\r\n",
    "folded with a tab": S + b"A: b\r\n\tc\r\n\r\n",
    "folded first line": S + b" A: b\r\n\r\n",
    "bare LF": S + b"A: b\nC: d\r\n\r\n",
    "bare CR": S + b"A: b\rC: d\r\n\r\n",
    "CR before the LF twice": S + b"A: b\r\r\n\r\n",
    "NUL": S + b"A: \x00\r\n\r\n",
    "control byte": S + b"A: \x1b[2J\r\n\r\n",
    "name with a blank": S + b"A B: c\r\n\r\n",
    "byte above ASCII in a name": S + b"\xe9: c\r\n\r\n",
    "no name": S + b": c\r\n\r\n",
    "line without a colon": S + b"A\r\n\r\n",
    "CR in the reason": b"HTTP/1.1 200 OK\rA: b\r\n\r\n",
    "LF in the reason": b"HTTP/1.1 200 OK\nA: b\r\n\r\n",
    "NUL in the reason": b"HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n",
    "escape in the reason": b"HTTP/1.1 200 \x1b[2J\r\nContent-Length: 0\r\n\r\n",
    "DEL in the reason": b"HTTP/1.1 200 \x7f\r\nContent-Length: 0\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status below 100": b"HTTP/1.1 099 OK\r\n\r\n" + EVIL,
    "status 000": b"HTTP/1.1 000 OK\r\n\r\n",
    "signed status": b"HTTP/1.1 +20 OK\r\n\r\n",
    "status that is none": b"HTTP/1.1 2x0 OK\r\n\r\n",
    "two blanks before the status": b"HTTP/1.1  200 OK\r\n\r\n",
    "no status": b"HTTP/1.1\r\n\r\n",
    "small letters": b"http/1.1 200 OK\r\n\r\n",
    "another version": b"HTTP/1.2 200 OK\r\n\r\n",
    "two digits in the version": b"HTTP/1.10 200 OK\r\n\r\n",
    "a frame of HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x50",
    "a page without a head": b"<html>hello</html>",
    "blanks first": b"  HTTP/1.1 200 OK\r\n\r\n",
    "endless header": S + b"A: " + b"b" * MAX_HEAD_BYTES,
    "endless headers": S + b"A: b\r\n" * (MAX_HEAD_BYTES // 6),
    "endless status line": b"HTTP/1.1 200 " + b"O" * MAX_HEAD_BYTES,
    "flood of interim answers": b"HTTP/1.1 103 Hints\r\n\r\n" * (MAX_INFORMATIONAL + 1),
    "protocol switched unasked": b"HTTP/1.1 101 Fine\r\nUpgrade: websocket\r\n\r\n",
    "switched, as if by the way": b"HTTP/1.1 101 Fine\r\n\r\n" + EVIL,
}  # fmt: skip


@pytest.mark.parametrize("shape", HEADS)
async def test_doubtful_head_is_502_and_its_connection_closed(gate: Gate, shape: str) -> None:
    client, peer = await asked(gate)
    await peer.send(HEADS[shape] + EVIL)
    response = await client.response()
    assert (response.status, response.code) == (502, "upstream_broken")
    assert response.header(b"Connection") == b"keep-alive"  # it isn't the client's fault
    assert await peer.is_left()
    await only_record(gate, 502, "upstream_broken", truncated=False)
    await next_is_answered(gate, client)


@pytest.mark.parametrize("cut", range(1, 60, 3))
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_hang_up_anywhere_in_the_head_is_502(gate: Gate, cut: int, how: str) -> None:
    client, peer = await asked(gate)
    head = S + b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n"
    await peer.send(head[:cut])
    getattr(peer, how)()
    response = await client.response()
    assert (response.status, response.code) == (502, "upstream_broken")
    await only_record(gate, 502, "upstream_broken", truncated=False)
    await next_is_answered(gate, client)


BODY = b"5\r\nhello\r\n006\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n"
CHUNKED = S + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("cut", range(len(BODY)))
async def test_chunks_cut_anywhere_never_look_complete(gate: Gate, cut: int) -> None:
    client, peer = await asked(gate)
    await peer.send(CHUNKED + BODY[:cut])
    await client.read_until(b"\r\n\r\n")
    peer.close()
    received = await client.read_to_end()
    assert not received.endswith(b"0\r\n\r\n")
    payload = b"".join(received.split(b"\r\n")[1::2])
    assert b"hello world".startswith(payload)
    record = await gate.records.next()
    assert (record.status_code, record.error_code) == (200, "upstream_broken")
    assert record.truncated
    assert record.response_bytes == len(payload)


@pytest.mark.parametrize("sent", [b"", b"0", b"012345678"])
@pytest.mark.parametrize("how", ["close", "reset", "half_close"])
async def test_body_shorter_than_its_length_never_looks_complete(
    gate: Gate, sent: bytes, how: str
) -> None:
    client, peer = await asked(gate)
    await peer.send(S + b"Content-Length: 10\r\n\r\n" + sent)
    await client.read_until(b"\r\n\r\n")
    assert await client.read(len(sent)) == sent
    getattr(peer, how)()
    assert await client.is_left()
    await only_record(gate, 200, "upstream_broken", truncated=True)


@pytest.mark.parametrize(
    "answer",
    [
        S + b"Content-Length: 2\r\n\r\nok" + EVIL,
        S + b"Content-Length: 2\r\n\r\nok!",
        S + b"Content-Length: 0\r\n\r\n" + EVIL,
        CHUNKED + b"2\r\nok\r\n0\r\n\r\n" + EVIL,
        b"HTTP/1.1 204 No\r\n\r\n" + EVIL,
        b"HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 304 No\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ],
)
async def test_bytes_after_the_end_reach_nobody(gate: Gate, answer: bytes) -> None:
    client, peer = await asked(gate)
    await peer.send(answer)
    response = await client.response()
    assert response.body in (b"ok", b"")
    assert response.status != 204 or response.header(b"Content-Length") is None
    assert await peer.is_left()
    await only_record(gate, response.status, "", truncated=False)
    await next_is_answered(gate, client)


async def test_interim_answers_up_to_the_limit_are_skipped(gate: Gate) -> None:
    client, peer = await asked(gate)
    await peer.send(b"HTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\n" * MAX_INFORMATIONAL + OK)
    response = await client.response()
    assert (response.body, response.header(b"Link")) == (b"ok", None)


async def test_head_may_be_exactly_as_long_as_the_limit(gate: Gate) -> None:
    empty = S + b"Content-Length: 2\r\nX-Filler: \r\n\r\n"
    filler = b"X-Filler: " + b"x" * (MAX_HEAD_BYTES - len(empty))
    client, peer = await asked(gate)
    await peer.send(empty.replace(b"X-Filler: ", filler) + b"ok")
    received = b""
    while not received.endswith(b"\r\n\r\nok"):
        received += await client.read_some()
    assert filler in received
    await client.send(gate.request(body=b"{}"))
    await peer.request()
    await peer.send(empty.replace(b"X-Filler: ", filler + b"x") + b"ok")
    assert (await client.response()).code == "upstream_broken"


LIMITS = (
    b"Retry-After: 17",
    b"retry-after-ms: 1700",
    b"x-ratelimit-limit-requests: 60",
    b"x-ratelimit-reset-tokens: 6m0s",
    b"anthropic-ratelimit-requests-remaining: 0",
    b"RateLimit: \"default\";r=0;t=17",
)  # fmt: skip


@pytest.mark.parametrize("status", [b"429 Too Many Requests", b"503 Busy", b"529 Overloaded"])
async def test_rate_limit_of_the_upstream_is_passed_on(gate: Gate, status: bytes) -> None:
    client, peer = await asked(gate)
    await peer.answer(b'{"error": {}}', *LIMITS, status=status)
    response = await client.response()
    assert response.head.startswith(b"HTTP/1.1 " + status + b"\r\n" + b"\r\n".join(LIMITS))
    assert response.body == b'{"error": {}}'
    assert not gate.openai.has_news()  # and not asked again
    await only_record(gate, int(status[:3]), "", truncated=False)
