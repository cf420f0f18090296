"""Requests that two readers could understand in two ways, beside those of `test_smuggling`.

Each case shows all three sides: what the client gets, that no upstream hears of it, what is
recorded. The good neighbours of each shape are here too, so that strictness stays where it belongs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_proxy.server.gateway.request_head import MAX_HEAD_BYTES, MAX_HEADERS, MAX_TARGET_BYTES

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Client, Gate, StartGate

pytestmark = pytest.mark.anyio

LINE = b"POST /v1/chat/completions HTTP/1.1\r\n"
H = LINE + b"Host: a\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NO_BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def coded(value: bytes) -> bytes:
    return H + b"Transfer-Encoding: " + value + b"\r\n\r\n0\r\n\r\n"


def sized(value: bytes) -> bytes:
    return H + b"Content-Length: " + value + b"\r\n\r\nabc"


SHAPES = {
    **{f"coding {value!r}": coded(value) for value in [
        b"chunked, identity", b"identity", b"identity, chunked", b"chunked\x0b", b"\x0bchunked",
        b"chunked\x0c", b"\x00chunked", b"chunked;q=1", b'"chunked"', b"chunked, chunked",
        b"chunked,", b",chunked", b"chunked chunked", b"chunke", b"chunkedd", b"",
    ]},
    **{f"length {value!r}": sized(value) for value in [
        b"3;", b"3 3", b"3,3", b"3,", b"3.0", b"3e0", b"0b11", b"0o3", b"3_0", b"3\x0b", b"\x0b3",
        b"\xb2", b"'3'", b"3 ,4", b"18446744073709551619", b"9" * 5000,
        b"0" * 15 + b"3", b"0" * 5000 + b"3",
    ]},
    "length in two cases": H + b"Content-Length: 3\r\ncONTENT-lENGTH: 4\r\n\r\nabc",
    "length, others, length": H + b"Content-Length: 3\r\nA: b\r\nContent-Length: 3\r\n\r\nabc",
    "coding and length 0": H + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
    "empty coding and length": H + b"Transfer-Encoding:\r\nContent-Length: 3\r\n\r\nabc",
    "folded coding": H + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "folded with a tab": H + b"X-A: 1\r\n\tX-B: 2\r\n\r\n",
    "only a fold": H + b"X-A: 1\r\n \r\n\r\n",
    "CR in a name": H + b"X\r-A: 1\r\n\r\n",
    "CR before the LF twice": H + b"X-A: 1\r\r\n\r\n",
    "CR at the start": b"\rPOST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n\r\n",
    "CR in the request line": b"POST /v1/chat/completions\rHTTP/1.1\r\nHost: a\r\n\r\n",
    "LF in the request line": b"POST /v1/chat/completions\nHTTP/1.1\r\nHost: a\r\n\r\n",
    "LF after the request line": LINE.replace(b"\r\n", b"\n") + b"Host: a\r\n\r\n",
    "NUL in a name": H + b"X\x00A: 1\r\n\r\n",
    "NUL in the target": b"GET /v1/models\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
    "NUL in the method": b"PO\x00ST /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    "control byte in a value": H + b"X-A: 1\x08\r\n\r\n",
    "byte above ASCII in a name": H + b"X-\xe9: 1\r\n\r\n",
    "parenthesis in a name": H + b"X(A): 1\r\n\r\n",
    "empty line, then headers": LINE + b": \r\nHost: a\r\n\r\n",
    "name after a blank": H + b" X-A: 1\r\n\r\n",
    "small letters in the version": b"GET /v1/models http/1.1\r\nHost: a\r\n\r\n",
    "blank after the version": b"GET /v1/models HTTP/1.1 \r\nHost: a\r\n\r\n",
    "two digits in the version": b"GET /v1/models HTTP/1.10\r\nHost: a\r\n\r\n",
    "leading zero in the version": b"GET /v1/models HTTP/01.1\r\nHost: a\r\n\r\n",
    "no minor version": b"GET /v1/models HTTP/1\r\nHost: a\r\n\r\n",
    "no version, but a blank": b"GET /v1/models \r\nHost: a\r\n\r\n",
    "no target": b"GET HTTP/1.1\r\nHost: a\r\n\r\n",
    "blank before the method": b" GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    "tab after the method": b"GET\t/v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS instead of HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "PROXY header unasked": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + H + b"\r\n",
}  # fmt: skip


async def is_refused(gate: Gate, client: Client) -> None:
    response = await client.response()
    assert (response.status, response.code) == (400, "invalid_request")
    assert response.header(b"Connection") == b"close"
    assert await client.is_left()
    for upstream in (gate.openai, gate.anthropic, gate.control):
        assert not upstream.has_news()
    (record,) = gate.records.all
    assert (record.status_code, record.error_code) == (400, "invalid_request")
    assert not record.truncated


@pytest.mark.parametrize("shape", SHAPES)
async def test_doubtful_request_is_refused_before_any_upstream_hears_of_it(
    gate: Gate, shape: str
) -> None:
    client = await gate.connect()
    await client.send(SHAPES[shape] + gate.request(target=b"/v1/models", method=b"GET"))
    await is_refused(gate, client)


@pytest.mark.parametrize("value", [b"chunked", b"Chunked", b"CHUNKED", b"  chunked", b"chunked "])
async def test_chunked_in_any_letters_and_blanks_is_understood(gate: Gate, value: bytes) -> None:
    request = gate.request(b"Transfer-Encoding:" + value) + b"2\r\nab\r\n0\r\n\r\n"
    received, response = await gate.relay(request, OK)
    assert received.endswith(b"\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n")
    assert response.status == 200


@pytest.mark.parametrize("value", [b"3", b"0003", b" \t3", b"3 \t", b"0" * 14 + b"3"])
async def test_plain_length_is_understood(gate: Gate, value: bytes) -> None:
    received, response = await gate.relay(gate.request(b"Content-Length:" + value) + b"abc", OK)
    assert received.endswith(b"\r\nContent-Length:" + value + b"\r\n\r\nabc")
    assert response.status == 200


CHUNKS = {
    "longer than 16 digits": b"00000000000000001\r\na\r\n0\r\n\r\n",
    "overflow": b"ffffffffffffffffffff\r\na",
    "empty extension": b"1;\r\na\r\n0\r\n\r\n",
    "extension of the last": b"1\r\na\r\n0;x\r\n\r\n",
    "blank after the size": b"1 \r\na\r\n0\r\n\r\n",
    "tab before the size": b"\t1\r\na\r\n0\r\n\r\n",
    "plus": b"+1\r\na\r\n0\r\n\r\n",
    "underscore": b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "not hexadecimal": b"g\r\na\r\n0\r\n\r\n",
    "no CRLF after the data": b"1\r\na0\r\n\r\n",
    "only LF after the data": b"1\r\na\n0\r\n\r\n",
    "only CR after the size": b"1\ra\r\n0\r\n\r\n",
    "size too small": b"1\r\nab\r\n0\r\n\r\n",
    "bare LF in the trailer": b"0\r\nA: b\nC: d\r\n\r\n",
    "endless trailer": b"0\r\n" + b"A: b\r\n" * 2000,
    "endless zeros": b"0" * 100,
}


@pytest.mark.parametrize("how", ["at once", "byte by byte"])
@pytest.mark.parametrize("shape", CHUNKS)
async def test_doubtful_chunks_end_the_request_and_its_connections(
    gate: Gate, shape: str, how: str
) -> None:
    client = await gate.connect()
    await client.send(gate.request(b"Transfer-Encoding: chunked"))
    peer = await gate.openai.accept()
    await peer.head()
    (connection,) = gate.connections
    smuggled = CHUNKS[shape] + gate.request(target=b"/v1/models", method=b"GET")
    step = len(smuggled) if how == "at once" else 1
    for start in range(0, len(smuggled), step):
        connection.data_received(smuggled[start : start + step])
    response = await client.response()
    assert (response.status, response.code) == (400, "invalid_request")
    assert response.header(b"Connection") == b"close"
    rest = await peer.read_to_end()  # the upstream is hung up on
    assert b"0\r\n\r\n" not in rest  # and was never told that this body is complete
    assert not gate.openai.has_news()
    (record,) = gate.records.all
    assert (record.status_code, record.error_code) == (400, "invalid_request")


async def test_head_may_be_exactly_as_long_as_the_limit(gate: Gate) -> None:
    client = await gate.connect()
    short = gate.request(b"X-Filler: ", method=b"GET", target=b"/v1/models")
    filler = b"X-Filler: " + b"x" * (MAX_HEAD_BYTES - len(short))
    await client.send(short.replace(b"X-Filler: ", filler))
    peer = await gate.openai.accept()
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        received += await peer.read_some()
    assert filler in received
    await peer.send(NO_BODY)
    assert (await client.response()).status == 200
    await client.send(short.replace(b"X-Filler: ", filler + b"x"))
    response = await client.response()
    assert (response.status, response.code) == (431, "headers_too_large")
    assert gate.records.all[-1].error_code == "headers_too_large"
    assert await client.is_left()


async def test_headers_may_be_exactly_as_many_as_the_limit(gate: Gate) -> None:
    lines = [b"X-%d: 1" % number for number in range(MAX_HEADERS - 2)]  # Host and the token
    received, response = await gate.relay(gate.request(*lines, method=b"GET"), NO_BODY)
    assert (response.status, received.count(b"\r\nX-")) == (200, MAX_HEADERS - 2)
    response = await gate.ask(gate.request(*lines, b"X-Y: 1", method=b"GET"))
    assert (response.status, response.code) == (431, "headers_too_large")


async def test_url_may_be_exactly_as_long_as_the_limit(gate: Gate) -> None:
    target = b"/v1/models?" + b"x" * (MAX_TARGET_BYTES - 11)
    _, response = await gate.relay(gate.request(method=b"GET", target=target), NO_BODY)
    assert response.status == 200
    response = await gate.ask(gate.request(method=b"GET", target=target + b"x"))
    assert (response.status, response.code) == (414, "url_too_long")


@pytest.mark.parametrize("size", [1000, 1001])
@pytest.mark.parametrize("framing", ["length", "one chunk", "many chunks"])
async def test_body_may_be_exactly_as_long_as_the_limit(
    start_gate: StartGate, framing: str, size: int
) -> None:
    gate = await start_gate(max_request_size=1000)
    if framing == "length":
        request = gate.request(body=b"x" * size)
    else:
        step = size if framing == "one chunk" else 1
        chunk = b"%x\r\n%b\r\n" % (step, b"x" * step)
        request = gate.request(b"Transfer-Encoding: chunked")
        request += chunk * (size // step) + b"0\r\n\r\n"
    if size == 1000:
        received, response = await gate.relay(request, OK)
        assert (response.status, received.count(b"x")) == (200, 1000)
        assert (await gate.records.next()).request_bytes == 1000
        return
    response = await gate.ask(request)
    assert (response.status, response.code) == (413, "body_too_large")
    assert (await gate.records.next()).error_code == "body_too_large"
    for peer in gate.openai.all:
        assert b"0\r\n\r\n" not in await peer.read_to_end()


async def test_leading_zeros_cannot_stretch_a_chunked_body(start_gate: StartGate) -> None:
    """The framing is not limited by MAX_REQUEST_SIZE, so its overhead per byte must be."""
    gate = await start_gate(max_request_size=10)
    body = b"0000000000000001\r\nx\r\n" * 11
    response = await gate.ask(gate.request(b"Transfer-Encoding: chunked") + body)
    assert response.code == "body_too_large"
