"""The listening sockets of a server: the public address once per worker slot, TCP, Unix."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from pathlib import Path
from typing import Any

from llm_proxy.address import Address, UnixAddress
from llm_proxy.errors import LLMProxyError
from llm_proxy.server.socket_file import bind_socket_file

BACKLOG = 4096  # the kernel caps it at its own limit
_UNSENT_BYTES = 131072
_PATIENCE_STEP_S = 0.05
_HELD = (errno.EADDRINUSE, errno.EWOULDBLOCK)  # the latter by a server that starts at this moment
_SOMAXCONN = Path("/proc/sys/net/core/somaxconn")


async def bind_public(
    address: Address | UnixAddress, *, slots: int, patience_s: float = 0.0
) -> list[socket.socket]:
    """One listening socket per worker slot, sharing the port by SO_REUSEPORT; port 0 picks one.

    A Unix socket can't be shared so: all workers get the same one. With `patience_s` an address in
    use is tried again that long: the workers of a server that was killed need a moment to let go.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience_s
    while True:
        try:
            if isinstance(address, UnixAddress):
                return [bind_socket_file(address.path, backlog=BACKLOG)]
            return _bind_slots(address.host, address.port, slots)
        except OSError as exc:
            if exc.errno in _HELD and loop.time() < deadline:
                await asyncio.sleep(_PATIENCE_STEP_S)
                continue
            if isinstance(address, UnixAddress):
                raise _explain_file(exc, address) from exc
            raise _explain(exc, address.host, address.port, flag="--addr") from exc


def bind_tcp(host: str, port: int, *, flag: str) -> socket.socket:
    """`flag` is the option that an error tells people to change."""
    try:
        return _bind(host, port, is_shared=False)
    except OSError as exc:
        raise _explain(exc, host, port, flag=flag) from exc


def bind_unix(path: Path) -> socket.socket:
    """A listening socket that only this user may connect to."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(os.fspath(path))
        path.chmod(0o600)  # the folder is 0700: nobody could come in between
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def address_of(sock: socket.socket) -> str:
    """`HOST:PORT` as bound, IPv6 in brackets, or `unix:PATH`."""
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    return str(Address(host, port))


def backlog_warning(setting: Path = _SOMAXCONN) -> str | None:
    """When the kernel lets fewer connections wait than are wanted here."""
    try:
        allowed = int(setting.read_text())
    except (OSError, ValueError):
        return None  # no Linux
    if allowed >= BACKLOG:
        return None
    return (
        f"the kernel lets only {allowed} connections wait to be accepted; for bursts, raise "
        f"net.core.somaxconn to {BACKLOG} (sysctl)"
    )


def _bind_slots(host: str, port: int, slots: int) -> list[socket.socket]:
    if port:
        # Without SO_REUSEPORT first: it would share the port of another running llm-proxy.
        _bind(host, port, is_shared=False).close()
    sockets: list[socket.socket] = []
    try:
        for _ in range(slots):
            sockets.append(_bind(host, port, is_shared=True))
            port = sockets[0].getsockname()[1]
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _bind(host: str, port: int, *, is_shared: bool) -> socket.socket:
    family, address = _resolve(host, port)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            limit_unsent(sock)
        if family == socket.AF_INET6:
            # `[::]` means every address of the machine, IPv4 too, whatever the system's default.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def limit_unsent(listener: socket.socket) -> None:
    """What the kernel takes for a client that doesn't read, else 4 MiB each: accepted sockets
    inherit it. What is on its way to a client isn't limited, nor is the speed."""
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)


def _resolve(host: str, port: int) -> tuple[int, Any]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # `localhost` is often ::1 first, which a client that asks 127.0.0.1 would not find.
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, address


def _explain(exc: OSError, host: str, port: int, *, flag: str) -> LLMProxyError:
    where = Address(host, port)
    if isinstance(exc, socket.gaierror):
        return LLMProxyError(f"the host of {flag} {where} can't be resolved ({exc.strerror})")
    if exc.errno == errno.EADDRINUSE:
        return LLMProxyError(
            f"{where} is in use: stop the program that listens there, "
            f"or choose another address with {flag}"
        )
    if exc.errno == errno.EACCES:
        return LLMProxyError(
            f"no permission to listen on {where}: ports below 1024 need privileges; "
            f"choose another with {flag}"
        )
    if exc.errno == errno.EADDRNOTAVAIL:
        return LLMProxyError(f"{host} is not an address of this machine; choose one with {flag}")
    return LLMProxyError(f"can't listen on {where} ({exc.strerror}); choose another with {flag}")


def _explain_file(exc: OSError, address: UnixAddress) -> LLMProxyError:
    if exc.errno == errno.EADDRINUSE:
        return LLMProxyError(
            f"{address} is in use, or no socket: stop the program that listens there, remove "
            "the file, or choose another path with --addr"
        )
    return LLMProxyError(
        f"can't listen on {address} ({exc.strerror or exc}); choose another path with --addr"
    )
