"""The ends of tunnels, and sides that are slow."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from llm_proxy.client_limits import ClientLimits
from llm_proxy.providers import Connection, Timeouts
from llm_proxy.server.gateway.exchange import Exchange
from llm_proxy.server.gateway.tunnel import Tunnel

if TYPE_CHECKING:
    from llm_proxy.events.record import ExchangeRecord
    from tests.server.gateway.conftest import Client, Gate, Peer, StartGate, Wire

pytestmark = pytest.mark.anyio

IDLE_S = 60.0
MIB = 1 << 20
CLOSE_WAIT = b"\x08"  # the state of a socket whose peer has sent its FIN
BLOCK = bytes(range(256)) * 1024  # 256 KiB
MOST_HELD = 256 * 1024  # bytes, for one direction
OPEN = {"allowed_endpoints": ("/v1/realtime",), "timeouts": Timeouts(idle=IDLE_S)}
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n%b\r\n"


@pytest.fixture
async def gate(start_gate: StartGate) -> Gate:
    return await start_gate(**OPEN)


def offer(gate: Gate) -> bytes:
    lines = (b"Connection: Upgrade", b"Upgrade: websocket")
    return gate.request(*lines, method=b"GET", target=b"/v1/realtime")


async def opened(gate: Gate, sock: socket.socket | None = None) -> tuple[Client, Peer]:
    client = await gate.connect(sock)
    await client.send(offer(gate))
    peer = await gate.openai.accept()
    await peer.head()
    await peer.send(SWITCH % b"")
    assert (await client.response()).status == 101
    return client, peer


async def ending(gate: Gate) -> ExchangeRecord:
    record = await gate.records.next()
    assert gate.gateway.metrics.tunnels == gate.gateway.running == 0
    assert not gate.records.all[1:]
    return record


async def test_end_by_the_upstream_follows_its_last_bytes(gate: Gate) -> None:
    client, peer = await opened(gate)
    peer.writer.write(BLOCK * 16 + b"goodbye")
    peer.half_close()
    assert await client.read_to_end() == BLOCK * 16 + b"goodbye"
    record = await ending(gate)
    assert (record.error_code, record.truncated) == ("", False)
    client.close()
    assert await peer.is_left()


async def test_end_by_the_client_follows_its_last_bytes(gate: Gate) -> None:
    client, peer = await opened(gate)
    client.writer.write(BLOCK * 16 + b"goodbye")
    client.half_close()
    assert await peer.read_to_end() == BLOCK * 16 + b"goodbye"
    record = await ending(gate)
    assert (record.error_code, record.truncated) == ("", False)
    assert record.request_bytes == 16 * len(BLOCK) + 7


async def test_last_words_arrive_though_the_other_side_keeps_talking(gate: Gate) -> None:
    """Closing with unread bytes is a reset, which would destroy what is on its way."""
    client, peer = await opened(gate)
    client.writer.write(b"goodbye")
    client.half_close()
    for _ in range(20):
        peer.writer.write(b"blah")
        await asyncio.sleep(0)
    assert await peer.read_to_end() == b"goodbye"


async def test_upstreams_last_words_arrive_though_the_client_keeps_talking(gate: Gate) -> None:
    client, peer = await opened(gate)
    peer.writer.write(b"goodbye")
    peer.half_close()
    for _ in range(20):
        client.writer.write(b"blah")
        await asyncio.sleep(0)
    assert await client.read_to_end() == b"goodbye"


async def test_upstream_that_ignores_the_end_is_left_soon(gate: Gate) -> None:
    client, peer = await opened(gate)
    client.close()
    assert await peer.read_to_end() == b""
    await ending(gate)
    peer.writer.write(b"still here")
    gate.timers.advance(2.1)
    while not peer.writer.is_closing():
        peer.writer.write(b"hello?")
        await asyncio.sleep(0)


async def test_client_that_ignores_the_end_is_left_soon(gate: Gate) -> None:
    client, peer = await opened(gate)
    peer.close()
    assert await client.read_to_end() == b""
    await ending(gate)
    assert gate.connections
    gate.timers.advance(2.1)
    while gate.connections:
        await asyncio.sleep(0)


@pytest.mark.parametrize("is_clients", [True, False])
async def test_reset_closes_the_other_side(gate: Gate, *, is_clients: bool) -> None:
    client, peer = await opened(gate)
    (client if is_clients else peer).reset()
    assert await (peer if is_clients else client).is_left()
    record = await ending(gate)
    assert record.status_code == 101
    expected = ("", False) if is_clients else ("upstream_broken", True)
    assert (record.error_code, record.truncated) == expected


async def test_connection_of_a_tunnel_is_never_used_again(start_gate: StartGate) -> None:
    gate = await start_gate(**OPEN, connection=Connection(max_conns=1))
    client, peer = await opened(gate)
    client.close()
    assert await peer.read_to_end() == b""
    peer.close()
    await ending(gate)
    other, next_peer = await opened(gate)
    assert next_peer is not peer
    await other.send(b"x")
    assert await next_peer.read(1) == b"x"


async def test_hang_up_before_the_answer_cancels_the_offer(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(offer(gate))
    peer = await gate.openai.accept()
    await peer.head()
    client.close()
    assert await peer.is_left()
    assert (await ending(gate)).error_code == "client_closed"


async def test_hang_up_by_the_upstream_before_its_answer_is_a_502(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(offer(gate))
    peer = await gate.openai.accept()
    await peer.head()
    await peer.send(SWITCH[:20])
    peer.close()
    assert (await client.response()).code == "upstream_broken"


async def test_upstream_that_never_answers_is_a_504(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(offer(gate))
    await (await gate.openai.accept()).head()
    gate.timers.advance(121)
    assert (await client.response()).code == "upstream_timeout"


async def test_kept_connection_that_is_closed_by_now_is_replaced(gate: Gate) -> None:
    client = await gate.connect()
    await client.send(gate.request(method=b"GET", target=b"/v1/realtime"))
    peer = await gate.openai.accept()
    await peer.head()
    await peer.answer()
    await client.response()
    await client.send(offer(gate))
    await peer.head()
    peer.close()
    peer = await gate.openai.accept()
    assert b"Upgrade: websocket" in await peer.head()
    await peer.send(SWITCH % b"" + b"hi")
    assert (await client.response()).status == 101
    assert await client.read(2) == b"hi"


async def test_silence_in_both_directions_ends_the_tunnel(gate: Gate) -> None:
    client, peer = await opened(gate)
    gate.timers.advance(IDLE_S + 1)
    assert await client.is_left()
    assert await peer.is_left()
    record = await ending(gate)
    assert (record.error_code, record.truncated) == ("idle_timeout", False)


@pytest.mark.parametrize("is_clients", [True, False])
async def test_traffic_in_one_direction_keeps_the_tunnel(gate: Gate, *, is_clients: bool) -> None:
    client, peer = await opened(gate)
    sender, receiver = (client, peer) if is_clients else (peer, client)
    for _ in range(5):
        gate.timers.advance(IDLE_S - 1)
        await sender.send(b"x")
        assert await receiver.read(1) == b"x"
    assert not gate.records.all
    gate.timers.advance(IDLE_S + 1)
    assert await receiver.is_left()


async def test_client_timeouts_do_not_apply(gate: Gate) -> None:
    client, peer = await opened(gate)
    await client.send(b"x")
    await peer.read(1)
    for _ in range(10):
        gate.timers.advance(IDLE_S - 1)
        await peer.send(b"y")
        await client.read(1)
    await client.send(b"z")
    assert await peer.read(1) == b"z"


async def test_drain_leaves_tunnels_alone(gate: Gate) -> None:
    client, peer = await opened(gate)
    gate.gateway.is_draining = True
    for connection in tuple(gate.connections):
        connection.drain()
    await client.send(b"x")
    assert await peer.read(1) == b"x"
    await peer.send(b"y")
    assert await client.read(1) == b"y"


async def read_all(wire: Wire, size: int) -> bool:
    """Whether `size` bytes of blocks came, whole and in order."""
    position = 0
    while position < size:
        data = await wire.read_some()
        start = position % len(BLOCK)
        expected = (BLOCK * (2 + len(data) // len(BLOCK)))[start : start + len(data)]
        if not data or data != expected:
            return False
        position += len(data)
    return True


async def test_client_that_stops_reading_pauses_the_upstream(gate: Gate) -> None:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    client, peer = await opened(gate, sock)
    client.stop_reading()
    sent = await peer.send_until_blocked(BLOCK)
    assert 0 < gate.client_transport().get_write_buffer_size() <= MOST_HELD
    await client.send(b"but it talks")
    assert await peer.read(12) == b"but it talks"
    gate.timers.advance(IDLE_S + 1)  # it is the client that is slow
    client.go_on_reading()
    assert await read_all(client, sent)
    await peer.send(b"x")
    assert await client.read(1) == b"x"


async def test_upstream_that_stops_reading_pauses_the_client(start_gate: StartGate) -> None:
    gate = await start_gate(**OPEN, is_narrow=True)
    client, peer = await opened(gate)
    peer.stop_reading()
    sent = await client.send_until_blocked(BLOCK)
    assert not gate.client_transport().is_reading()
    await peer.send(b"but it talks")
    assert await client.read(12) == b"but it talks"
    peer.go_on_reading()
    assert await read_all(peer, sent)
    await client.send(b"x")
    assert await peer.read(1) == b"x"


async def sent_until_paused(gate: Gate, client: Client) -> int:
    """How much was sent when the gateway had stopped reading and its kernel held some more."""
    sent = 0
    while gate.client_transport().is_reading():
        client.writer.write(BLOCK[:16384])
        sent += 16384
        await asyncio.sleep(0)
        if not gate.client_transport().is_reading():
            await asyncio.sleep(0.05)  # what is on its way to the upstream may make room again
    client.writer.write(BLOCK[:16384])
    assert client.writer.transport.get_write_buffer_size() == 0
    return sent + 16384


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")
async def test_last_bytes_of_a_client_wait_for_a_slow_upstream(start_gate: StartGate) -> None:
    """They and the end are in the kernel, where a look at it could pass for a hang-up."""
    gate = await start_gate(**OPEN, is_narrow=True)
    client, peer = await opened(gate)
    peer.stop_reading()
    sent = await sent_until_paused(gate, client)
    client.half_close()
    sock = gate.client_transport().get_extra_info("socket")
    while sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) != CLOSE_WAIT:
        await asyncio.sleep(0)
    gate.timers.advance(1)
    peer.go_on_reading()
    assert await read_all(peer, sent)
    assert await peer.read_to_end() == b""
    assert (await ending(gate)).request_bytes == sent


async def test_upstream_that_never_reads_again_is_left(start_gate: StartGate) -> None:
    gate = await start_gate(**OPEN, is_narrow=True)
    client, peer = await opened(gate)
    peer.stop_reading()
    await client.send_until_blocked(BLOCK)
    gate.timers.advance(IDLE_S + 1)
    assert (await ending(gate)).error_code == "idle_timeout"
    gate.timers.advance(ClientLimits().write_timeout + 1)
    assert await client.is_left()


async def test_client_that_never_reads_again_is_left(gate: Gate) -> None:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    client, peer = await opened(gate, sock)
    client.stop_reading()
    await peer.send_until_blocked(BLOCK)
    gate.timers.advance(ClientLimits().write_timeout + 1)
    await ending(gate)
    assert not gate.connections
    gate.timers.advance(3)
    with pytest.raises(ConnectionError):
        while True:
            await peer.send(BLOCK)


async def test_ended_tunnel_leaves_nothing_to_the_garbage_collector(gate: Gate) -> None:
    client, peer = await opened(gate)
    gc.collect()
    gc.disable()
    try:
        client.close()
        assert await peer.read_to_end() == b""
        peer.close()
        await ending(gate)
        while gate.connections:
            await asyncio.sleep(0)
        left = [thing for thing in gc.get_objects() if type(thing) in (Tunnel, Exchange)]
    finally:
        gc.enable()
    assert left == []
