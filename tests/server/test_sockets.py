from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from contextlib import closing
from pathlib import Path

import pytest

from llm_proxy.address import Address, UnixAddress
from llm_proxy.errors import LLMProxyError
from llm_proxy.server.sockets import address_of, backlog_warning, bind_public, bind_tcp, bind_unix

pytestmark = pytest.mark.anyio


async def test_slots_share_one_free_port() -> None:
    sockets = await bind_public(Address("127.0.0.1", 0), slots=3)
    try:
        addresses = {address_of(sock) for sock in sockets}
        assert len(sockets) == 3
        assert len(addresses) == 1
        assert not addresses.pop().endswith(":0")
    finally:
        for sock in sockets:
            sock.close()


async def test_connection_waits_in_the_backlog() -> None:
    (sock,) = await bind_public(Address("127.0.0.1", 0), slots=1)
    with sock, closing(socket.create_connection(sock.getsockname(), timeout=10)):
        pass


async def test_client_that_does_not_read_is_sent_little() -> None:
    (listener,) = await bind_public(Address("127.0.0.1", 0), slots=1)
    with listener, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            accepted.setblocking(False)
            taken = 0
            with contextlib.suppress(BlockingIOError):
                while taken < 1 << 20:
                    taken += accepted.send(bytes(65536))
    assert taken <= 256 << 10


async def test_port_of_another_server_is_refused_though_it_is_shareable() -> None:
    (first,) = await bind_public(Address("127.0.0.1", 0), slots=1)
    port = first.getsockname()[1]
    with first, pytest.raises(LLMProxyError) as caught:
        await bind_public(Address("127.0.0.1", port), slots=1)
    assert str(caught.value) == (
        f"127.0.0.1:{port} is in use: stop the program that listens there, "
        "or choose another address with --addr"
    )


async def test_patience_waits_for_the_port() -> None:
    (first,) = await bind_public(Address("127.0.0.1", 0), slots=1)
    port = first.getsockname()[1]
    asyncio.get_running_loop().call_later(0.1, first.close)
    (second,) = await bind_public(Address("127.0.0.1", port), slots=1, patience_s=5)
    second.close()


async def test_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    (sock,) = await bind_public(Address("::1", 0), slots=1)
    with sock:
        assert address_of(sock).startswith("[::1]:")


async def test_localhost_is_found_where_clients_look_first() -> None:
    (sock,) = await bind_public(Address("localhost", 0), slots=1)
    with sock:
        assert sock.family == socket.AF_INET


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("192.0.2.1", "192.0.2.1 is not an address of this machine; choose one with --addr"),
        ("no.such.host.invalid", "can't be resolved"),
    ],
)
async def test_impossible_host_is_one_clear_sentence(host: str, message: str) -> None:
    with pytest.raises(LLMProxyError, match=message):
        await bind_public(Address(host, 0), slots=1)


def test_management_address_in_use_names_its_flag() -> None:
    with (
        bind_tcp("127.0.0.1", 0, flag="--manage-addr") as first,
        pytest.raises(LLMProxyError, match="is in use: .*--manage-addr"),
    ):
        bind_tcp("127.0.0.1", first.getsockname()[1], flag="--manage-addr")


def test_unix_socket_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with bind_unix(path), closing(socket.socket(socket.AF_UNIX)) as client:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        client.connect(os.fspath(path))


def test_unix_socket_path_in_use_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    with pytest.raises(OSError, match="in use"):
        bind_unix(tmp_path / "s")


async def test_all_slots_share_one_unix_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket has to be short
    (sock,) = await bind_public(UnixAddress(Path("s")), slots=3)
    with sock:
        assert address_of(sock) == "unix:s"
        with pytest.raises(LLMProxyError) as caught:
            await bind_public(UnixAddress(Path("s")), slots=1)
    assert str(caught.value) == (
        "unix:s is in use, or no socket: stop the program that listens there, remove the file, "
        "or choose another path with --addr"
    )


async def test_impossible_socket_path_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(LLMProxyError, match=r"can't listen on unix:.*No such file or directory"):
        await bind_public(UnixAddress(tmp_path / "missing" / "s"), slots=1)


@pytest.mark.parametrize(
    ("content", "warns"), [("128\n", True), ("4096\n", False), ("", False), (None, False)]
)
def test_short_queue_of_the_kernel_is_warned_of(
    tmp_path: Path, content: str | None, warns: bool
) -> None:
    setting = tmp_path / "somaxconn"
    if content is not None:
        setting.write_text(content)
    warning = backlog_warning(setting)
    assert (warning is not None and "128" in warning and "somaxconn" in warning) == warns
