"""Accepting from proxies that speak the PROXY protocol: the header first, then TLS or HTTP."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final

from llm_proxy.address import UNIX
from llm_proxy.server.gateway.client_address import TrustedProxies, plain_address
from llm_proxy.server.gateway.listener import TLS_SHUTDOWN_S
from llm_proxy.server.gateway.proxy_protocol import (
    MAX_V2_BYTES,
    ProxyProtocolError,
    parse_proxy_header,
)

logger = logging.getLogger(__name__)

# Whose header is not complete. One more, and the oldest must go: proxies send it at once, so that
# those who are silent could keep everybody else out.
MAX_ARRIVALS: Final = 1024
_ACCEPTS_AT_ONCE: Final = 64  # then others get their turn
_REST_S: Final = 0.25  # when there are no descriptors left
_WARN_EVERY_S: Final = 60.0
_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))

MakeProtocol = Callable[[str], asyncio.Protocol]  # from the address of the client


class ProxiedAcceptor:
    """Costs a task for each connection, so it stands only where the PROXY protocol is on."""

    def __init__(
        self,
        sock: socket.socket,
        make: MakeProtocol,
        *,
        trusted: TrustedProxies | None,
        context: ssl.SSLContext | None,
        head_timeout_s: float,
        max_arrivals: int = MAX_ARRIVALS,
    ) -> None:
        """`trusted`: whose header is required and believed; None: everybody's."""
        self._sock = sock
        self._make = make
        self._trusted = trusted
        self._context = context
        self._head_timeout_s = head_timeout_s
        self._max_arrivals = max_arrivals
        self._loop = asyncio.get_running_loop()
        self._arrivals: dict[_Arrival, None] = {}  # the oldest first
        self._adoptions: set[asyncio.Task[None]] = set()
        self._is_started = False
        self._resting: asyncio.TimerHandle | None = None
        self._warned_at = float("-inf")

    async def start(self) -> None:
        self._resume()

    def pause(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
        if self._is_started:
            self._is_started = False
            self._loop.remove_reader(self._sock.fileno())

    def close(self) -> None:
        self.pause()
        self._sock.close()

    async def wait_closed(self) -> None:
        for arrival in tuple(self._arrivals):
            arrival.give_up()
        for task in self._adoptions:
            task.cancel()
        await asyncio.gather(*self._adoptions, return_exceptions=True)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                sock, address = self._sock.accept()
            except OSError as exc:
                if exc.errno in _EXHAUSTED:
                    self._rest()
                return  # else nobody is there, or whoever was has left
            sock.setblocking(False)
            peer = plain_address(address[0]) if isinstance(address, tuple) else UNIX
            if self._trusted is None or self._trusted.includes(peer):
                if len(self._arrivals) >= self._max_arrivals:
                    next(iter(self._arrivals)).give_up()
                arrival = _Arrival(self, sock, peer)
                self._arrivals[arrival] = None
                arrival.wait(self._loop, self._head_timeout_s)
            else:
                self.adopt(sock, peer)

    def _rest(self) -> None:
        """The loop would call again at once, and as often as it can."""
        self.pause()
        self._resting = self._loop.call_later(_REST_S, self._resume)

    def _resume(self) -> None:
        self._is_started = True
        self._loop.add_reader(self._sock.fileno(), self._accept)

    def leave(self, arrival: _Arrival) -> None:
        del self._arrivals[arrival]

    def adopt(self, sock: socket.socket, client: str) -> None:
        task = self._loop.create_task(self._adopt(sock, client))
        self._adoptions.add(task)
        task.add_done_callback(self._adoptions.discard)

    async def _adopt(self, sock: socket.socket, client: str) -> None:
        has_tls = self._context is not None
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._make(client),
                sock,
                ssl=self._context,
                ssl_handshake_timeout=self._head_timeout_s if has_tls else None,
                ssl_shutdown_timeout=TLS_SHUTDOWN_S if has_tls else None,
            )
        except OSError:  # the handshake failed, which is the client's affair
            sock.close()
        except BaseException:
            sock.close()
            raise

    def warn(self, peer: str, reason: ProxyProtocolError) -> None:
        now = self._loop.time()
        if now - self._warned_at >= _WARN_EVERY_S:
            self._warned_at = now
            logger.warning(
                "a connection from %s was closed: %s (PROXY_PROTOCOL is on; like ones of the "
                "next minute aren't logged)",
                peer,
                reason,
            )


class _Arrival:
    """A connection whose header is on its way. Nothing behind the header is read here."""

    def __init__(self, acceptor: ProxiedAcceptor, sock: socket.socket, peer: str) -> None:
        self._acceptor = acceptor
        self._sock = sock
        self._peer = peer
        self._received = b""  # taken from the socket: left in it, the loop would never rest

    def wait(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._timer = loop.call_later(seconds, self.give_up)
        loop.add_reader(self._sock.fileno(), self._read)

    def give_up(self) -> None:
        self._end()
        self._sock.close()

    def _end(self) -> None:
        self._timer.cancel()
        self._loop.remove_reader(self._sock.fileno())
        self._acceptor.leave(self)

    def _read(self) -> None:
        try:
            piece = self._sock.recv(MAX_V2_BYTES, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            piece = b""
        if not piece:  # a probe of a load balancer does no more than connect
            self.give_up()
            return
        try:
            header = parse_proxy_header(self._received + piece)
        except ProxyProtocolError as exc:
            self._acceptor.warn(self._peer, exc)
            self.give_up()
            return
        if header is None:
            self._received += self._sock.recv(len(piece))
            return
        self._sock.recv(header.size - len(self._received))
        self._end()
        self._acceptor.adopt(self._sock, header.client or self._peer)
