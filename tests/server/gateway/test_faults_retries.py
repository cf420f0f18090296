"""What is sent a second time, what never is, and what an outage may make of it."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from llm_proxy.http1.retry import FLOOR
from llm_proxy.providers import Retry

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Client, Gate, StartGate

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
KEY = b"Idempotency-Key: 1"


async def ends_while_it_runs(gate: Gate, client: Client, *, times: int) -> None:
    """The upstream gets the whole request so often, and hangs up on each."""
    for _ in range(times):
        peer = await gate.openai.accept()
        await peer.request()
        peer.close()
    response = await client.response(method="GET")
    assert (response.status, response.code) == (502, "upstream_broken")
    assert not gate.openai.has_news()
    record = await gate.records.next()
    assert (record.status_code, record.error_code) == (502, "upstream_broken")
    assert len(gate.records.all) == 1
    assert await gate.counted() == 1


@pytest.mark.parametrize(
    ("method", "lines", "times"),
    [
        (b"GET", (), 3),
        (b"DELETE", (), 3),
        (b"POST", (), 1),
        (b"POST", (KEY,), 3),
        (b"POST", (b"X-Idempotency-Key: 1",), 1),
        (b"POST", (b"X-HTTP-Method-Override: GET",), 1),
    ],
)
async def test_only_what_may_be_repeated_is_sent_again(
    start_gate: StartGate, method: bytes, lines: tuple[bytes, ...], times: int
) -> None:
    gate = await start_gate(retry=Retry(attempts=2))
    client = await gate.connect()
    await client.send(gate.request(*lines, method=method, target=b"/v1/models", body=b"{}"))
    await ends_while_it_runs(gate, client, times=times)


@pytest.mark.parametrize("begun", [b"H", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_nothing_is_sent_again_once_a_byte_came_back(gate: Gate, begun: bytes) -> None:
    client = await gate.connect()
    await client.send(gate.request(KEY, method=b"GET", target=b"/v1/models"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.send(begun)
    peer.close()
    response = await client.response()
    assert (response.status, response.code) == (502, "upstream_broken")
    assert not gate.openai.has_news()


@pytest.mark.parametrize("status", [b"500 Oops", b"502 Bad", b"503 Busy", b"504 Late", b"429 No"])
async def test_an_answer_is_never_asked_for_again(gate: Gate, status: bytes) -> None:
    """It is passed on, with its Retry-After: when to come again is the client's business."""
    client = await gate.connect()
    await client.send(gate.request(KEY, method=b"GET", target=b"/v1/models"))
    peer = await gate.openai.accept()
    await peer.request()
    await peer.answer(b"no", b"Retry-After: 9", status=status)
    response = await client.response()
    assert response.head.startswith(b"HTTP/1.1 " + status)
    assert response.header(b"Retry-After") == b"9"
    assert not gate.openai.has_news()
    assert (await gate.records.next()).status_code == int(status[:3])


async def test_retries_do_not_multiply_an_outage(start_gate: StartGate) -> None:
    gate = await start_gate(retry=Retry(attempts=5))
    requests = 40

    async def fail() -> None:
        while True:
            peer = await gate.openai.accept()
            await peer.head()
            peer.close()

    failing = asyncio.create_task(fail())
    clients = [await gate.connect() for _ in range(requests)]
    for client in clients:
        await client.send(gate.request(method=b"GET", target=b"/v1/models"))
    for client in clients:
        assert (await client.response()).status in (502, 503)
    failing.cancel()
    await asyncio.gather(failing, return_exceptions=True)
    assert requests <= len(gate.openai.all) <= requests + FLOOR


async def test_connecting_again_is_no_second_charge(start_gate: StartGate) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        gate = await start_gate(base_url=address, retry=Retry(attempts=2))
        response = await gate.ask(gate.request(body=b"{}"))
    assert (response.status, response.code) == (502, "upstream_unreachable")
    assert await gate.counted() == 0  # the upstream saw nothing of it
    assert gate.upstreams[0].pool.connect_failures == 3
