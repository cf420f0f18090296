"""What hostile clients and upstreams tried on purpose."""

from __future__ import annotations

import asyncio
import encodings
import gc
import json
import socket
import tracemalloc
from typing import TYPE_CHECKING, Any, cast

import pytest

from llm_proxy.errors import Refusal
from llm_proxy.http1.response_head import parse_response_head
from llm_proxy.providers import Auth
from llm_proxy.server.gateway.parameters import check_parameters
from llm_proxy.server.gateway.request_head import LastHead

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Gate, StartGate

pytestmark = pytest.mark.anyio

EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
MODELS = {"model": ("gpt-4*",)}
LARGE = 4000
# Read as UTF-7, the model is inside of `n`, where no whitelist looks.
HIDDEN_IN_UTF7 = (
    b'{"a":"+ACIALAAiAG4AIgA6AHsAIgBxACIAOgAiAHI-","model":"dear","b":"+ACIAfQAsACIAdAAiADoAIgB6-"}'
)


async def test_an_error_event_never_completes_an_announced_length(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.send(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 60\r\n\r\n"
        b"data: 1\n\n"
    )
    peer.close()
    head = await client.read_until(b"\r\n\r\n")
    assert b"Content-Length: 60" in head
    assert await client.read_to_end() == b"data: 1\n\n"


async def test_a_clients_header_named_as_the_configured_credential_is_replaced(
    start_gate: StartGate,
) -> None:
    gate = await start_gate(auth=Auth(header="X-Upstream-Auth", scheme=""))
    request = gate.request(b"x-upstream-auth: mine", b"A: b", body=b"{}")
    received, _ = await gate.relay(request, EMPTY)
    assert received.lower().count(b"x-upstream-auth") == 1
    assert b"mine" not in received
    assert b"\r\nA: b\r\n" in received


@pytest.mark.parametrize("charset", [b"utf-7", b"UTF7", b"unicode-1-1-utf-7"])
def test_no_charset_hides_a_parameter_from_the_whitelist(charset: bytes) -> None:
    with pytest.raises(Refusal, match="'model' has the value 'dear'"):
        check_parameters(HIDDEN_IN_UTF7, b"application/json; charset=" + charset, MODELS)


@pytest.mark.parametrize("monster", [b"[" * 5000 + b"]" * 5000, b"9" * 5000])
def test_a_reading_too_large_to_be_checked_is_refused(monster: bytes) -> None:
    """As UTF-7 the monster is inside of a string; as UTF-8 Python gives up on it."""
    body = (
        b'{"c":"+AFw-","+ACwAIgB5ACIAOgAiAFw-":' + monster + b',"+ACwAIgB6ACIAOgAiAFw-":'
        b'"+ACwAIgB3ACIAOgAi-"}'
    )
    assert list(json.loads(body.decode("utf-7"))) == ["c", "y", "z", "w"]
    with pytest.raises(Refusal):
        check_parameters(body, b"application/json; charset=utf-7", MODELS)


@pytest.mark.parametrize("name", ["Model", "MODEL"])
def test_a_parameter_in_other_letters_is_checked_too(name: str) -> None:
    """Go's JSON decoder, for one, ignores case; the last one wins."""
    body = f'{{"model":"gpt-4o","{name}":"dear"}}'.encode()
    with pytest.raises(Refusal, match="has the value 'dear'"):
        check_parameters(body, b"application/json", MODELS)


def test_invented_charsets_are_not_remembered() -> None:
    known = cast("dict[str, Any]", vars(encodings)["_cache"])
    before = len(known)
    for number in range(50):
        with pytest.raises(Refusal):
            check_parameters(b"{}", b"text/json; charset=invented-%d" % number, MODELS)
    assert len(known) == before


def _kept_by_us() -> int:
    """Bytes in large blocks that our code has allocated since the tracing began: other threads
    and coverage, which counts in our frames, allocate small ones."""
    gc.collect()
    ours = tracemalloc.Filter(inclusive=True, filename_pattern="*/llm_proxy/*")
    traces = tracemalloc.take_snapshot().filter_traces([ours]).traces
    return sum(trace.size for trace in traces if trace.size >= LARGE)


def test_a_kept_connection_does_not_keep_a_huge_head() -> None:
    filler = b"".join(b"X-%d: %b\r\n" % (number, b"x" * LARGE) for number in range(15))
    raw = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n" + filler + b"\r\n"
    last = LastHead()
    tracemalloc.start()
    try:
        assert last.parse(raw).content_length == 1
        kept = _kept_by_us()
    finally:
        tracemalloc.stop()
    assert kept < len(raw)


async def test_long_paths_of_strangers_are_not_remembered(gate: Gate) -> None:
    client = await gate.connect()
    tracemalloc.start()
    try:
        for number in range(100):
            target = b"/v1/files/%d/%b" % (number, b"x" * 8000)
            await client.send(gate.request(method=b"GET", target=target, token=b""))
            assert (await client.response()).code == "missing_token"
        kept = _kept_by_us()
    finally:
        tracemalloc.stop()
    assert kept < 10 * len(target)


@pytest.mark.parametrize(
    "framing",
    [
        b"\r\n",
        b"Content-Length: 1\r\n\r\nx",
        b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    ],
)
async def test_a_pipeline_is_read_no_faster_than_it_is_answered(gate: Gate, framing: bytes) -> None:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client = await gate.connect(sock)
    client.stop_reading()
    pipeline = (b"POST /nope HTTP/1.1\r\nHost: a\r\n" + framing) * 400_000
    client.writer.write(pipeline)
    gateways = gate.client_transport()
    async with asyncio.timeout(30):
        while not gateways.get_write_buffer_size():
            await asyncio.sleep(0)
    left = cast("asyncio.Transport", client.writer.transport).get_write_buffer_size()
    assert left > len(pipeline) // 2


async def test_a_pipeline_of_chunked_requests_waits_for_the_upstream(gate: Gate) -> None:
    """An upstream that is ready lets in the rest of a body, not the requests behind it."""
    client = await gate.connect()
    one = gate.request(b"Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\n\r\n"
    client.writer.write(one * 100_000)
    peer = await gate.openai.accept()
    for _ in range(100):
        await peer.request()
        await peer.send(EMPTY)
        await client.response()
    left = cast("asyncio.Transport", client.writer.transport).get_write_buffer_size()
    assert left > len(one) * 50_000


async def test_clients_that_leave_while_an_upstream_connects_leave_nothing(gate: Gate) -> None:
    for turns in range(30):
        client = await gate.connect()
        await client.send(gate.request(body=b"{}"))
        for _ in range(turns // 2):
            await asyncio.sleep(0)
        client.reset()
        while gate.connections:
            await asyncio.sleep(0)
    async with asyncio.timeout(30):
        while gate.upstreams[0].pool._open:
            await asyncio.sleep(0)
    assert not gate.timers._watched


def test_long_lines_of_an_upstream_are_not_remembered() -> None:
    tracemalloc.start()
    try:
        for number in range(50):
            line = b"Content-Type: text/%d; x=%b\r\n" % (number, b"y" * 30000)
            assert parse_response_head(b"HTTP/1.1 200 OK\r\n" + line + b"\r\n").content_type
        kept = _kept_by_us()
    finally:
        tracemalloc.stop()
    assert kept < 10 * len(line)
