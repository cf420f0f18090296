"""One client's connection: requests in, one exchange at a time, in the order they came.

The connection finds heads and bodies and hands them to an `Exchange`; what the exchange writes
goes out at once. Both directions are paused when the other side is slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Final, cast

from llm_proxy.address import UNIX
from llm_proxy.errors import Refusal
from llm_proxy.http1.framing import ChunkedDecoder, FramingError
from llm_proxy.http1.timers import NEVER
from llm_proxy.server.gateway.exchange import Exchange
from llm_proxy.server.gateway.gateway import Gateway
from llm_proxy.server.gateway.request_head import (
    MAX_HEAD_BYTES,
    MAX_TARGET_BYTES,
    LastHead,
    RequestHead,
)
from llm_proxy.server.gateway.tunnel import Tunnel

DRAIN_HEAD_S: Final = 1.0  # for the rest of a head that has begun when a drain does
DRAIN_IDLE_S: Final = 0.5  # for a request that is on its way
LINGER_S: Final = 2.0  # reading what is still being sent, so that the answer isn't lost to a reset
MAX_PIPELINED_BYTES: Final = 4096  # waiting for their turn; then one read
MAX_TLS_WRITE: Final = 65536  # what is encrypted at once is held twice, if the client doesn't read
MIN_BODY_PROGRESS: Final = 1024  # bytes within `body_timeout`: one a minute keeps nothing open
MAX_DISCARDED_BYTES: Final = 262144  # of a refused body, to keep the connection
_NO_BYTES: Final = b""
_GONE_STATES: Final = frozenset((7, 8))  # TCP_CLOSE, TCP_CLOSE_WAIT


class ClientConnection(asyncio.Protocol):
    __slots__ = (
        "_body_left",
        "_body_progress",
        "_buffer",
        "_chunked",
        "_connections",
        "_deadline",
        "_discarded",
        "_drain_idle",
        "_exchange",
        "_gateway",
        "_is_lingering",
        "_is_reading_paused",
        "_last_head",
        "_limits",
        "_pipelined",
        "_tunnel",
        "client_ip",
        "is_closed",
        "is_writing_paused",
        "transport",
    )

    def __init__(self, gateway: Gateway, connections: set[ClientConnection]) -> None:
        self._gateway = gateway
        self._limits = gateway.client_limits
        self._connections = connections
        self._exchange: Exchange | None = None
        self._last_head = LastHead()
        self._buffer = _NO_BYTES  # of a head that isn't complete
        self._pipelined = _NO_BYTES  # what came while an exchange was running
        self._body_left = 0
        self._body_progress = 0  # bytes since the time limit of the body was last extended
        self._chunked: ChunkedDecoder | None = None
        self._discarded = 0
        self._drain_idle = DRAIN_IDLE_S
        self._tunnel: Tunnel | None = None  # once HTTP is over
        self._is_lingering = False
        self._is_reading_paused = False
        self.is_writing_paused = False  # the client doesn't read what it is sent
        self._deadline = NEVER
        self.client_ip = ""
        self.is_closed = False
        self.transport: asyncio.Transport

    # What the transport says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        # What is read from an upstream at once, at most 250 KiB, is enough to hold. Not 0: uvloop's
        # TLS would never resume.
        self.transport.set_write_buffer_limits(high=1)
        peer = transport.get_extra_info("peername")
        self.client_ip = peer[0] if isinstance(peer, tuple) else UNIX
        self._connections.add(self)
        self._gateway.metrics.connected += 1
        self._gateway.timers.watch(self)
        self._deadline = self._gateway.timers.now + self._limits.head_timeout

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        self._connections.discard(self)
        self._gateway.timers.forget(self)
        exchange, self._exchange = self._exchange, None
        tunnel, self._tunnel = self._tunnel, None
        if tunnel is not None:
            tunnel.client_gone()
        elif exchange is not None:
            exchange.client_gone()

    def data_received(self, data: bytes) -> None:
        if self._body_left or self._chunked is not None:
            self._receive_body(data)
        elif self._is_lingering:
            pass
        elif self._exchange is not None or self._pipelined or self.is_writing_paused:
            if self._tunnel is not None:
                self._tunnel.request_continues(data)
                return
            self._pipelined += data
            if len(self._pipelined) > MAX_PIPELINED_BYTES:
                self.pause_reading()
        else:
            self._receive_head(data)

    def pause_writing(self) -> None:
        self.is_writing_paused = True
        self._deadline = self._gateway.timers.now + self._limits.write_timeout
        if self._exchange is not None:
            self._exchange.pause_response()

    def resume_writing(self) -> None:
        self.is_writing_paused = False
        if self._is_lingering or self.transport.is_closing():
            return
        if self._body_left or self._chunked is not None:
            self._expect_body()
        elif self._exchange is not None:
            self._deadline = NEVER
        else:
            self._next()
        if self._exchange is not None:
            self._exchange.resume_response()

    def check(self, now: float) -> None:
        if self._is_reading_paused and self._tunnel is None and self._peer_has_left():
            self.abort()
        elif now >= self._deadline:
            self._deadline = NEVER
            self._time_out()

    # Heads and bodies.

    def _receive_head(self, data: bytes) -> None:
        known = 0  # bytes that were looked at: a head that drips is not searched at every drop
        if self._buffer:
            known = len(self._buffer) if len(self._buffer) > 3 else 0
            data = self._buffer + data
            self._buffer = _NO_BYTES
        if data[:2] == b"\r\n":  # RFC 9112 section 2.2
            data, known = data[2:], 0
        end = data.find(b"\r\n\r\n", known and known - 3, MAX_HEAD_BYTES) + 4
        if end < 4:
            self._keep_head(data, known)
            return
        try:
            head = self._last_head.parse(data if end == len(data) else data[:end])
        except Refusal as refusal:
            self._refuse_head(refusal)
            return
        self._deadline = NEVER
        self._exchange = exchange = Exchange(self._gateway, self, head)
        if head.is_chunked:
            self._receive_first_chunks(exchange, data[end:])
            return
        body = data[end:]
        left = head.content_length - len(body)
        if left <= 0:
            if left:
                body, self._pipelined = body[:left], body[left:]
            exchange.start(body, True)
        else:
            self._body_left = left
            self._expect_body()
            exchange.start(body, False)

    def _receive_first_chunks(self, exchange: Exchange, data: bytes) -> None:
        decoder = self._chunked = ChunkedDecoder()
        try:
            body = decoder.feed(data) if data else data
        except FramingError as exc:
            self._break_body(exc)
            return
        if decoder.is_complete:
            self._chunked = None
            self._pipelined = decoder.rest
        else:
            self._expect_body()
        exchange.start(body, decoder.is_complete)

    def _keep_head(self, data: bytes, known: int) -> None:
        fresh = data[known - (data[known - 1 : known] == b"\r") :] if known else data
        if len(data) >= MAX_HEAD_BYTES:
            self._refuse_head(
                Refusal("headers_too_large", f"The head is longer than {MAX_HEAD_BYTES} bytes.")
            )
        elif len(data) > MAX_TARGET_BYTES + 256 and b"\n" not in data[: MAX_TARGET_BYTES + 256]:
            self._refuse_head(
                Refusal("url_too_long", f"The URL is longer than {MAX_TARGET_BYTES} bytes.")
            )
        elif fresh.count(b"\n") != fresh.count(b"\r\n"):  # its end would never be found
            self._refuse_head(Refusal("invalid_request", "A line of the head ends in a bare LF."))
        else:
            if data and not self._buffer:
                self._deadline = min(
                    self._deadline, self._gateway.timers.now + self._limits.head_timeout
                )
            self._buffer = data
            self.resume_reading()

    def _refuse_head(self, refusal: Refusal) -> None:
        """Nothing after a head that can't be trusted can be found, so the connection ends."""
        head = RequestHead()
        head.keeps_alive = False
        self._exchange = Exchange(self._gateway, self, head)
        self._is_lingering = True
        self._exchange.refuse(refusal)

    def _receive_body(self, data: bytes) -> None:
        chunked = self._chunked
        rest = _NO_BYTES
        if chunked is None:
            ends = len(data) >= self._body_left
            if ends:
                data, rest = data[: self._body_left], data[self._body_left :]
            self._body_left -= len(data)
        else:
            try:
                data = chunked.feed(data)
            except FramingError as exc:
                self._break_body(exc)
                return
            ends = chunked.is_complete
            if ends:
                rest = chunked.rest
                self._chunked = None
        self._body_progress += len(data)
        if not self.is_writing_paused:
            if ends:
                self._deadline = NEVER
            elif self._body_progress >= MIN_BODY_PROGRESS or self._deadline == NEVER:
                self._expect_body()
        if rest:
            self._pipelined = rest
            if len(rest) > MAX_PIPELINED_BYTES:
                self.pause_reading()
        if self._exchange is not None:
            self._exchange.body_arrives(data, ends)
        else:
            self._discard(len(data), ends)

    def _break_body(self, exc: FramingError) -> None:
        self._chunked = None
        self._is_lingering = True
        if self._exchange is None:
            self._linger()
        else:
            self._exchange.keeps_alive = False
            self._exchange.refuse(Refusal("invalid_request", f"The body is malformed: {exc}."))

    def _expect_body(self) -> None:
        self._body_progress = 0
        self._deadline = self._gateway.timers.now + self._limits.body_timeout

    def _discard(self, size: int, ends: bool) -> None:
        """The rest of a body whose request has been answered."""
        self._discarded += size
        if ends:
            self._discarded = 0
            self._next()
        elif self._discarded > MAX_DISCARDED_BYTES:
            self._linger()

    def revoke(self, kind: str, identity: str) -> None:
        """Ends what runs for this token or project."""
        exchange = self._exchange
        if exchange is None or not exchange.is_of(kind, identity):
            return
        if self._tunnel is not None:
            self._tunnel.cut("token_revoked")
        else:
            exchange.revoke()

    # What the exchange says.

    def write(self, data: bytes) -> None:
        if self.is_closed:
            return
        if len(data) > MAX_TLS_WRITE and not self.transport.can_write_eof():
            for start in range(0, len(data), MAX_TLS_WRITE):
                self.transport.write(data[start : start + MAX_TLS_WRITE])
        else:
            self.transport.write(data)

    def can_keep_alive(self) -> bool:
        """Whether the rest of the request is short enough to be read for the next one's sake."""
        return self._body_left <= MAX_DISCARDED_BYTES and not self._gateway.is_draining

    def finish(self, keeps_alive: bool) -> None:
        """The answer is written; on to the next request, or to the end."""
        self._exchange = None
        if self.is_closed:
            return
        has_more = self._body_left > 0 or self._chunked is not None or self._is_lingering
        if not keeps_alive:
            if has_more or self._pipelined:
                self._linger()
            else:
                self.close()
        elif not has_more:
            self._next()
        elif self._is_reading_paused:
            self.resume_reading()

    def become_tunnel(self, tunnel: Tunnel) -> bytes:
        """From here on all that comes is the tunnel's; what came already."""
        self._tunnel = tunnel
        early, self._pipelined = self._pipelined, _NO_BYTES
        self.resume_reading()
        return early

    def end_tunnel(self) -> None:
        """What was written still goes out."""
        self._exchange = None
        if not self.is_closed and not self.transport.is_closing():
            self._linger()

    def _next(self) -> None:
        if self.is_writing_paused:
            return  # until it has read its answers: more of them would pile up
        self._deadline = self._gateway.timers.now + self._limits.keep_alive_timeout
        if self._is_reading_paused:
            self.resume_reading()
        if self._pipelined:
            # Not from here: a thousand pipelined requests would be as many frames deep.
            asyncio.get_running_loop().call_soon(self._receive_pipelined)
        elif self._gateway.is_draining:  # not at once: its head said that one may go on asking
            self._limit(self._drain_idle)

    def _receive_pipelined(self) -> None:
        if self._exchange is None and not self.is_closed:
            data, self._pipelined = self._pipelined, _NO_BYTES
            if data:
                self._receive_head(data)

    def pause_reading(self) -> None:
        if not self._is_reading_paused and not self.is_closed:
            self._is_reading_paused = True
            self.transport.pause_reading()
            if not self.is_writing_paused:
                self._deadline = NEVER  # it is us who make the client wait

    def resume_reading(self) -> None:
        if len(self._pipelined) > MAX_PIPELINED_BYTES:
            return  # each request answered would let in more than it takes away
        if self._is_reading_paused and not self.is_closed:
            self._is_reading_paused = False
            self.transport.resume_reading()
            if (self._body_left or self._chunked is not None) and not self.is_writing_paused:
                self._expect_body()

    # Ends.

    def drain(self, idle_grace_s: float = DRAIN_IDLE_S) -> None:
        """Ends when nothing has come for so long; answers say from now on that they are the last.

        To close at once would lose a request that is on its way (RFC 9112 section 9.6).
        """
        self._drain_idle = idle_grace_s
        if self._exchange is None and not self._pipelined:
            self._limit(DRAIN_HEAD_S if self._buffer else idle_grace_s)

    def _limit(self, seconds: float) -> None:
        self._deadline = min(self._deadline, self._gateway.timers.now + seconds)

    def cut(self) -> None:
        """The drain is over: what still runs ends as a broken answer does."""
        exchange = self._exchange
        if self._tunnel is not None:
            self._tunnel.cut("draining")
        elif exchange is not None:
            exchange.keeps_alive = False
            exchange.refuse(Refusal("draining", "The server is stopping; send the request again."))

    def close(self) -> None:
        if not self.is_closed:
            self._deadline = self._gateway.timers.now + self._limits.write_timeout
            self.transport.close()

    def abort(self) -> None:
        if not self.is_closed:
            self.transport.abort()

    def reset(self) -> None:
        """Ends without FIN, which would say that what came is all there is."""
        if not self.is_closed:
            sock = self.transport.get_extra_info("socket")
            with contextlib.suppress(OSError):  # macOS refuses it where the client has gone
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()

    def _linger(self) -> None:
        """Closes in stages (RFC 9112 section 9.6): a reset would destroy the answer on its way."""
        self._is_lingering = True
        self._body_left = 0
        self._chunked = None
        self._pipelined = _NO_BYTES
        is_read = not self.transport.get_write_buffer_size()
        self._deadline = self._gateway.timers.now + (
            LINGER_S if is_read else self._limits.write_timeout
        )
        self.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.close()

    def _time_out(self) -> None:
        exchange = self._exchange
        if self.is_writing_paused or self._is_lingering or self.transport.is_closing():
            self.abort()
        elif exchange is not None and (self._body_left or self._chunked is not None):
            self._is_lingering = True
            exchange.keeps_alive = False
            exchange.refuse(
                Refusal(
                    "request_timeout",
                    f"Next to nothing of the body came within {self._limits.body_timeout:g} s.",
                )
            )
        elif self._buffer:
            self._refuse_head(
                Refusal("request_timeout", "The head of the request was not complete in time.")
            )
        else:
            self.abort()

    def _peer_has_left(self) -> bool:
        """Asks the kernel, since a paused transport sees neither FIN nor RST."""
        if not hasattr(socket, "TCP_INFO"):
            return False
        sock = self.transport.get_extra_info("socket")
        try:
            state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        except OSError:
            return False
        return struct.unpack("B", state)[0] in _GONE_STATES
