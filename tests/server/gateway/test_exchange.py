"""Bodies in every framing of HTTP/1.0 and 1.1, both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_proxy.providers import Connection

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Client, Gate, Peer, StartGate

pytestmark = pytest.mark.anyio

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def begin(gate: Gate, request: bytes) -> tuple[Client, Peer]:
    client = await gate.connect()
    await client.send(request)
    peer = await gate.openai.accept()
    await peer.request()
    return client, peer


async def test_chunked_response_is_framed_anew(gate: Gate) -> None:
    client, peer = await begin(gate, gate.request(body=b"{}"))
    await peer.send(CHUNKED + b"003\r\nabc\r\n")
    head = await client.read_until(b"\r\n\r\n")
    assert head.count(b"Transfer-Encoding: chunked\r\n") == 1
    assert await client.read_until(b"abc\r\n") == b"3\r\nabc\r\n"
    await peer.send(b"A\r\n0123456789\r\n0\r\nX-Trailer: 1\r\n\r\n")
    assert await client.read(20) == b"a\r\n0123456789\r\n0\r\n\r\n"


async def test_chunks_cut_anywhere_arrive_whole(gate: Gate) -> None:
    body = CHUNKED + b"3\r\nabc\r\n1f\r\n" + b"\r\n" * 15 + b"\n\r\n" + b"0\r\n\r\n"
    for cut in range(1, len(body)):
        client, peer = await begin(gate, gate.request(b"Connection: close", body=b"{}"))
        await peer.send(body[:cut])
        if cut >= len(CHUNKED):
            await client.read_until(b"\r\n\r\n")  # the first piece has been relayed
        await peer.send(body[cut:])
        pieces = [] if cut >= len(CHUNKED) else [await client.read_until(b"\r\n\r\n")]
        while piece := await client.chunk():
            pieces.append(piece)
        assert b"".join(pieces).endswith(b"abc" + b"\r\n" * 15 + b"\n")
        assert await client.is_left()
        peer.close()


async def test_body_without_length_ends_with_the_connection(gate: Gate) -> None:
    client, peer = await begin(gate, gate.request(body=b"{}"))
    await peer.send(b"HTTP/1.1 200 OK\r\n\r\none")
    await client.read_until(b"one\r\n")
    await peer.send(b"two")
    peer.close()
    assert await client.chunk() == b"two"
    assert await client.chunk() == b""
    record = await gate.records.next()
    assert (record.response_bytes, record.truncated) == (6, False)
    await client.send(gate.request(body=b"{}"))  # the client's connection goes on
    await (await gate.openai.accept()).request()


async def test_http_10_upstream_is_spoken_for_in_11_and_not_kept(gate: Gate) -> None:
    client, peer = await begin(gate, gate.request(body=b"{}"))
    await peer.send(b"HTTP/1.0 201 Made\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")
    response = await client.response()
    assert response.head.startswith(b"HTTP/1.1 201 Made\r\n")
    assert response.body == b"ok"
    assert await peer.is_left()


@pytest.mark.parametrize("framing", [b"", b"Content-Length: 2\r\n"])
async def test_http_10_with_chunked_is_refused_from_an_upstream(gate: Gate, framing: bytes) -> None:
    client, peer = await begin(gate, gate.request(body=b"{}"))
    await peer.send(
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n" + framing + b"\r\n0\r\n\r\n"
    )
    response = await client.response()
    assert (response.status, response.code) == (502, "upstream_broken")


async def test_http_10_client_gets_its_connection_closed(gate: Gate) -> None:
    request = gate.request(body=b"{}").replace(b"HTTP/1.1", b"HTTP/1.0")
    client, peer = await begin(gate, request)
    await peer.answer(b"ok")
    response = await client.response()
    assert response.header(b"Connection") == b"close"
    assert (response.framing, response.body) == ("length", b"ok")
    assert await client.is_left()


async def test_http_10_client_needs_no_host_and_upstream_gets_11(gate: Gate) -> None:
    request = b"GET /v1/models HTTP/1.0\r\nx-api-key: " + gate.token + b"\r\n\r\n"
    received, response = await gate.relay(request, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert received.startswith(b"GET /v1/models HTTP/1.1\r\n")
    assert received.count(b"\r\nHost: 127.0.0.1:") == 1
    assert response.status == 200


async def test_http_10_client_may_ask_to_be_kept(gate: Gate) -> None:
    request = gate.request(b"Connection: Keep-Alive", body=b"{}").replace(b"HTTP/1.1", b"HTTP/1.0")
    client, peer = await begin(gate, request)
    await peer.answer(b"ok")
    assert (await client.response()).header(b"Connection") == b"keep-alive"
    await client.send(request)
    await peer.request()


async def test_http_10_client_gets_chunks_unframed_until_the_close(gate: Gate) -> None:
    request = gate.request(b"Connection: keep-alive", body=b"{}").replace(b"HTTP/1.1", b"HTTP/1.0")
    client, peer = await begin(gate, request)
    await peer.send(CHUNKED + b"3\r\nabc\r\n0\r\n\r\n")
    response = await client.response()
    assert (response.framing, response.body) == ("close", b"abc")
    assert response.header(b"Connection") == b"close"


async def test_http_10_client_is_reset_when_an_answer_without_length_breaks(gate: Gate) -> None:
    request = gate.request(body=b"{}").replace(b"HTTP/1.1", b"HTTP/1.0")
    client, peer = await begin(gate, request)
    await peer.send(CHUNKED + b"3\r\nabc\r\n")
    await client.read_until(b"abc")
    peer.reset()
    with pytest.raises(ConnectionResetError):
        await client.read_to_end()


async def test_chunked_request_is_framed_anew(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(b"Transfer-Encoding: chunked") + b"3\r\nabc\r\n")
    peer = await gate.openai.accept()
    head = await peer.head()
    assert head.endswith(b"\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert b"Content-Length" not in head
    assert await peer.read(8) == b"3\r\nabc\r\n"
    await client.send(b"0004\r\nde")
    await client.send(b"fg\r\n0\r\nX-Trailer: gone\r\n\r\n")
    received = await peer.read_until(b"0\r\n\r\n")
    assert b"gone" not in received
    assert received in (b"2\r\nde\r\n2\r\nfg\r\n0\r\n\r\n", b"4\r\ndefg\r\n0\r\n\r\n")
    await peer.answer(b"ok")
    assert (await client.response()).body == b"ok"
    record = await gate.records.next()
    assert record.request_bytes == 7


async def test_chunked_request_cut_anywhere_arrives_whole(gate: Gate) -> None:
    chunks = b"3\r\nabc\r\nb\r\n0123456789a\r\n0\r\n\r\n"
    head = gate.request(b"Transfer-Encoding: chunked")
    client = await gate.connect()
    peer: Peer | None = None
    for cut in range(1, len(chunks)):
        await client.send(head + chunks[:cut])
        peer = peer or await gate.openai.accept()
        await peer.head()
        await client.send(chunks[cut:])
        received = await peer.read_until(b"0\r\n\r\n")
        payload = b"".join(
            line for line in received.split(b"\r\n")[1::2] if line
        )  # sizes and payloads take turns
        assert payload == b"abc0123456789a"
        await peer.answer()
        await client.response()


@pytest.mark.parametrize(
    "chunks",
    [
        b"3;ext=1\r\nabc\r\n",
        b"3\nabc\n",
        b"3\r\nabcX",
        b"3\r\nabc\n",
        b"-3\r\nabc\r\n",
        b"0x3\r\nabc\r\n",
        b" 3\r\nabc\r\n",
        b"\r\n",
        b"11111111111111111\r\n",
        b"0\r\nX: 1\nY: 2\r\n\r\n",
    ],
)
async def test_broken_chunks_of_a_request_are_refused(gate: Gate, chunks: bytes) -> None:
    client = await gate.connect()
    await client.send(gate.request(b"Transfer-Encoding: chunked") + chunks)
    response = await client.response()
    assert (response.status, response.code) == (400, "invalid_request")
    assert response.header(b"Connection") == b"close"
    assert await client.is_left()


async def test_connection_that_is_no_longer_wanted_frees_its_place(start_gate: StartGate) -> None:
    """A body refused in the packet of its head ends the opening before it began."""
    gate = await start_gate(connection=Connection(max_conns=1))
    broken = gate.request(b"Transfer-Encoding: chunked") + b"broken\r\n"
    assert (await gate.ask(broken)).status == 400
    received, response = await gate.relay(
        gate.request(body=b"{}"), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    )
    assert response.status == 200


async def test_broken_chunk_of_an_upstream_is_an_error(gate: Gate) -> None:
    client, peer = await begin(gate, gate.request(body=b"{}"))
    await peer.send(CHUNKED + b"zz\r\n")
    response = await client.response()
    assert (response.status, response.code) == (502, "upstream_broken")


async def test_upgrade_with_a_body_is_forwarded_as_a_plain_request(gate: Gate) -> None:
    request = gate.request(b"Connection: upgrade", b"Upgrade: websocket", body=b'{"a":1}')
    client, peer = await begin(gate, request)
    await peer.answer(b"ok")
    assert (await client.response()).body == b"ok"
    assert (await gate.records.next()).request_bytes == 7
    await client.send(gate.request(body=b"{}"))
    received = await peer.request()
    assert received.endswith(b"{}")


async def test_upgrade_header_does_not_reach_the_upstream(gate: Gate) -> None:
    received, _ = await gate.relay(
        gate.request(b"Connection: upgrade", b"Upgrade: websocket", body=b'{"a":1}'),
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    )
    assert b"pgrade" not in received
    assert received.endswith(b'\r\n\r\n{"a":1}')


async def test_interim_responses_are_skipped(gate: Gate) -> None:
    client, peer = await begin(gate, gate.request(body=b"{}"))
    await peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
    await peer.send(b"HTTP/1.1 199 Odd\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    response = await client.response()
    assert (response.status, response.body) == (200, b"ok")
    assert response.header(b"Link") is None
    await client.send(gate.request(body=b"{}"))
    await peer.request()  # and the connection is kept


async def test_endless_interim_responses_are_an_error(gate: Gate) -> None:
    client, peer = await begin(gate, gate.request(body=b"{}"))
    await peer.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 17)
    assert (await client.response()).code == "upstream_broken"


@pytest.mark.parametrize(
    "line", [b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b"Upgrade: websocket\r\n", b""]
)
async def test_upstream_cannot_switch_protocols(gate: Gate, line: bytes) -> None:
    client, peer = await begin(gate, gate.request(body=b"{}"))
    await peer.send(b"HTTP/1.1 101 Switching\r\n" + line + b"\r\n")
    assert (await client.response()).code == "upstream_broken"


async def test_surplus_of_an_upstream_never_reaches_the_next_request(gate: Gate) -> None:
    client, peer = await begin(gate, gate.request(body=b"{}"))
    smuggled = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + smuggled)
    assert (await client.response()).body == b"ok"
    assert await peer.is_left()
    await client.send(gate.request(body=b"{}"))
    other = await gate.openai.accept()
    await other.request()
    await other.answer(b"good")
    assert (await client.response()).body == b"good"


async def test_upstream_that_speaks_unasked_is_dropped(gate: Gate) -> None:
    client, peer = await begin(gate, gate.request(body=b"{}"))
    await peer.answer(b"ok")
    await client.response()
    await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    assert await peer.is_left()


async def test_early_response_is_relayed_while_the_body_is_still_sent(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(b"Content-Length: 1000") + b"x" * 100)
    peer = await gate.openai.accept()
    await peer.head()
    await peer.read(100)
    await peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nbig!")
    response = await client.response()
    assert (response.status, response.body) == (413, b"big!")
    assert response.header(b"Connection") == b"close"
    assert await client.is_left()
    assert await peer.is_left()


async def test_upload_goes_on_after_an_early_response_has_begun(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(b"Content-Length: 10") + b"01234")
    peer = await gate.openai.accept()
    await peer.head()
    await peer.read(5)
    await peer.send(CHUNKED + b"4\r\necho\r\n")
    assert await client.read_until(b"echo\r\n")
    await client.send(b"56789")
    assert await peer.read(5) == b"56789"
    await peer.send(b"0\r\n\r\n")
    assert await client.read(5) == b"0\r\n\r\n"
    assert await client.is_left()
