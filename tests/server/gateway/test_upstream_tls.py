"""TLS to upstreams: verified, with SNI, and no different in what is relayed."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

from llm_proxy.errors import ConfigError

if TYPE_CHECKING:
    from tests.server.gateway.conftest import Client, Gate, Peer, StartGate

pytestmark = pytest.mark.anyio

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Authority:
    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.ca_file = str(folder / "ca.pem")
        self._ca.cert_pem.write_to_path(self.ca_file)
        self.names: list[str | None] = []  # as clients asked for them

    def server(self, *identities: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*identities).configure_cert(context)
        context.sni_callback = self._note
        return context

    def _note(self, _: ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> None:
        self.names.append(name)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
async def secure(start_gate: StartGate, authority: Authority) -> Gate:
    context = authority.server("localhost")
    return await start_gate(tls=context, tls_host="localhost", ca_file=authority.ca_file)


async def test_trusted_upstream_is_asked_by_its_name(secure: Gate, authority: Authority) -> None:
    authority.names.clear()
    received, response = await secure.relay(secure.request(body=b"{}"), ANSWER)
    assert response.body == b"ok"
    assert b"\r\nHost: localhost:%d\r\n" % secure.openai.port in received
    assert authority.names == ["localhost"]


async def test_connection_is_kept(secure: Gate) -> None:
    client = await secure.connect()
    await client.send(secure.request(body=b"{}") * 3)
    peer = await secure.openai.accept()
    for _ in range(3):
        await peer.request()
        await peer.send(ANSWER)
        assert (await client.response()).body == b"ok"


async def test_unknown_authority_is_not_trusted(
    start_gate: StartGate, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "asyncio")
    other = Authority(tmp_path)
    gate = await start_gate(
        tls=authority.server("localhost"), tls_host="localhost", ca_file=other.ca_file
    )
    response = await gate.ask(gate.request(body=b"{}"))
    assert (response.status, response.code) == (502, "upstream_unreachable")
    message = response.error["message"]
    assert message.startswith("The upstream's certificate is not trusted: ")
    assert "unable to get local issuer certificate" in message
    assert not gate.openai.has_news()


async def test_certificate_of_another_host_is_not_trusted(
    start_gate: StartGate, authority: Authority
) -> None:
    gate = await start_gate(
        tls=authority.server("other.test"), tls_host="localhost", ca_file=authority.ca_file
    )
    response = await gate.ask(gate.request(body=b"{}"))
    assert response.code == "upstream_unreachable"
    assert "certificate is not valid for 'localhost'" in response.error["message"]


async def test_upstream_without_tls_is_unreachable(
    start_gate: StartGate, authority: Authority
) -> None:
    gate = await start_gate(tls_host="localhost", ca_file=authority.ca_file)
    client = await gate.connect()
    await client.send(gate.request(body=b"{}"))
    for _ in range(2):  # the second is the configured retry
        peer = await gate.openai.accept()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    response = await client.response()
    assert (response.status, response.code) == (502, "upstream_unreachable")
    assert response.error["message"].startswith("TLS with the upstream failed: ")


async def test_old_protocol_is_refused(start_gate: StartGate, authority: Authority) -> None:
    context = authority.server("localhost")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    gate = await start_gate(tls=context, tls_host="localhost", ca_file=authority.ca_file)
    assert (await gate.ask(gate.request(body=b"{}"))).code == "upstream_unreachable"


async def test_missing_ca_file_is_an_error_of_the_configuration(start_gate: StartGate) -> None:
    with pytest.raises(ConfigError, match=r"ca_file /no/such\.pem: No such file or directory"):
        await start_gate(base_url="https://localhost", ca_file="/no/such.pem")


SIZE = 64 << 20


def send_until_blocked(listener: ssl.SSLSocket) -> tuple[ssl.SSLSocket, int]:
    """Runs in a thread: uvloop does not tell how much of a TLS stream it holds back."""
    connection, _ = listener.accept()
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
    connection.settimeout(0.3)
    sent = 0
    while sent < SIZE:
        try:
            sent += connection.send(b"x" * 16384)
        except TimeoutError:
            break
    return connection, sent


def send_rest(connection: ssl.SSLSocket, size: int) -> None:
    connection.settimeout(60)
    connection.sendall(b"x" * size)
    connection.close()


async def test_slow_client_pauses_an_upstream_over_tls(
    start_gate: StartGate, authority: Authority
) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    with authority.server("localhost").wrap_socket(listening, server_side=True) as listener:
        port = listener.getsockname()[1]
        gate = await start_gate(base_url=f"https://localhost:{port}", ca_file=authority.ca_file)
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        client = await gate.connect(sock)
        client.stop_reading()
        await client.send(gate.request(body=b"{}"))
        connection, sent = await asyncio.to_thread(send_until_blocked, listener)
        assert sent < SIZE // 2  # what the kernel's buffers take
        assert gate.client_transport().get_write_buffer_size() < 1_000_000
        client.go_on_reading()
        sending = asyncio.create_task(asyncio.to_thread(send_rest, connection, SIZE - sent))
        assert len((await client.response()).body) == SIZE
        await sending


async def test_end_without_a_goodbye_is_no_end(secure: Gate) -> None:
    """Anybody on the way can send a FIN: without TLS's own close, a body may be cut."""
    client = await secure.connect()
    await client.send(secure.request(body=b"{}"))
    peer = await secure.openai.accept()
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\n\r\npart")
    await client.read_until(b"\r\n\r\n")
    assert await client.chunk() == b"part"
    peer.writer.transport.abort()
    assert await client.is_left()  # without a last chunk
    assert (await secure.records.next()).truncated


async def test_end_with_a_goodbye_is_an_end(secure: Gate) -> None:
    client = await secure.connect()
    await client.send(secure.request(body=b"{}"))
    peer = await secure.openai.accept()
    await peer.request()
    await peer.send(b"HTTP/1.1 200 OK\r\n\r\nwhole")
    peer.close()
    assert (await client.response()).body == b"whole"
    assert not (await secure.records.next()).truncated


async def test_upload_goes_on_after_each_pause(secure: Gate) -> None:
    client = await secure.connect()
    client.writer.write(secure.request(b"Content-Length: %d" % (4 << 20)) + bytes(4 << 20))
    peer = await secure.openai.accept()
    await peer.head()
    assert await peer.read(4 << 20) == bytes(4 << 20)
    await peer.send(ANSWER)
    assert (await client.response()).body == b"ok"


async def opened_tunnel(secure: Gate) -> tuple[Client, Peer]:
    lines = (b"Connection: Upgrade", b"Upgrade: websocket")
    client = await secure.connect()
    await client.send(secure.request(*lines, method=b"GET", target=b"/v1/models"))
    peer = await secure.openai.accept()
    await peer.head()
    await peer.send(b"HTTP/1.1 101 Switching Protocols\r\n" + b"\r\n".join([*lines, b"", b""]))
    assert (await client.response()).status == 101
    return client, peer


async def test_tunnel_passes_all_up_to_the_clients_end(secure: Gate) -> None:
    client, peer = await opened_tunnel(secure)
    await peer.send(b"hello")
    assert await client.read(5) == b"hello"
    client.writer.write(bytes(1 << 20) + b"goodbye")
    client.half_close()
    assert await peer.read_to_end() == bytes(1 << 20) + b"goodbye"
    assert not (await secure.records.next()).truncated


async def test_tunnel_passes_all_up_to_the_upstreams_end(secure: Gate) -> None:
    client, peer = await opened_tunnel(secure)
    peer.writer.write(bytes(1 << 20) + b"goodbye")
    peer.close()
    assert await client.read_to_end() == bytes(1 << 20) + b"goodbye"
    assert not (await secure.records.next()).truncated


async def test_tunnel_whose_tls_was_cut_is_truncated(secure: Gate) -> None:
    client, peer = await opened_tunnel(secure)
    peer.writer.transport.abort()
    assert await client.read_to_end() == b""
    record = await secure.records.next()
    assert (record.error_code, record.truncated) == ("upstream_broken", True)
