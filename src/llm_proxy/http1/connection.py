"""The client's side of one HTTP/1.1 connection: a request out, its response back, again.

Bytes of the request are written by the owner, framed as they are; the response is parsed here and
handed over piece by piece as it arrives. Bodies that end with the connection, or that must not
exist, are decided here (RFC 9112 section 6.3).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, cast

from llm_proxy.http1.delivery import unacknowledged_bytes
from llm_proxy.http1.framing import ChunkedDecoder, FramingError
from llm_proxy.http1.response_head import ResponseHead, parse_response_head
from llm_proxy.http1.timers import NEVER

if TYPE_CHECKING:
    from llm_proxy.http1.pool import Pool

MAX_HEAD_BYTES: Final = 65536
MAX_INFORMATIONAL: Final = 16  # 1xx responses before the real one
LINGER_S: Final = 2.0  # reading what comes after our end of a tunnel: a reset would destroy it
_UNTIL_CLOSE: Final = -1  # as the bytes to come
_TUNNEL: Final = -2  # likewise until the close, but both ways


class UpstreamError(Exception):
    """The upstream failed; `code` is one of `upstream_unreachable upstream_broken
    upstream_timeout overloaded`, `is_untouched` says that not a byte had come back."""

    def __init__(self, code: str, message: str, *, is_untouched: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.is_untouched = is_untouched


class TunnelHandler(Protocol):
    """Whoever is told what comes after a head."""

    def response_continues(self, body: bytes, ends: bool) -> None: ...
    def response_fails(self, error: UpstreamError) -> None: ...
    def pause_request(self) -> None: ...
    def resume_request(self) -> None: ...


class ResponseHandler(TunnelHandler, Protocol):
    """Whoever sent the request; `body` may be empty, `ends` comes exactly once unless it fails."""

    def upstream_ready(self, connection: UpstreamConnection) -> None: ...
    def response_begins(self, head: ResponseHead, body: bytes, ends: bool) -> None: ...


class UpstreamConnection(asyncio.Protocol):
    __slots__ = (
        "_buffer",
        "_chunked",
        "_has_head",
        "_has_seen_fin",
        "_informational",
        "_is_paused",
        "_is_reusable",
        "_is_writing_paused",
        "_left",
        "_method",
        "_pool",
        "_request_has_ended",
        "_socket",
        "_switched",
        "_transport",
        "deadline",
        "handler",
        "is_closed",
        "is_reused",
    )

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._transport: asyncio.Transport
        self._socket: socket.socket | None = None  # over TLS, whose transport is gone at the end
        self._has_seen_fin = False
        self.handler: ResponseHandler | None = None
        self.is_closed = False
        self.is_reused = False
        self.deadline = NEVER  # on the clock of the pool's timers
        self._is_paused = False
        self._is_writing_paused = False
        self._prepare()

    def _prepare(self) -> None:
        self._method = b""
        self._buffer = b""
        self._has_head = False
        self._informational = 0
        self._chunked: ChunkedDecoder | None = None
        self._left = 0  # bytes of the body to come
        self._is_reusable = False
        self._request_has_ended = False
        self._switched: Callable[[ResponseHead, bytes], None] | None = None

    # The owner's side.

    def send(self, handler: ResponseHandler, method: bytes, data: bytes, ends: bool) -> None:
        """Begins a request: its head, and whatever of the body there is."""
        self.handler = handler
        self._method = method
        self.send_more(data, ends)

    def send_more(self, data: bytes, ends: bool) -> None:
        self._request_has_ended = ends
        if not self._has_head:  # the wait for it begins when all is sent: clients may be slow
            wait = self._pool.timeouts.response_header if ends else NEVER
            self.deadline = self._pool.timers.now + wait
        elif self._left == _TUNNEL and not self._is_paused:  # either direction keeps it open
            self.deadline = self._pool.timers.now + self._pool.timeouts.idle
        if not self.is_closed:
            self._transport.write(data)

    def offer_switch(self, switched: Callable[[ResponseHead, bytes], None]) -> None:
        """The request about to be sent offers a WebSocket: if the upstream takes it, `switched` is
        called in place of `response_begins`, with what came behind the head."""
        self._switched = switched

    def become_tunnel(self, handler: TunnelHandler) -> None:
        """To be called by `switched`; from here on `send_more` sends and `finish` ends."""
        self._left = _TUNNEL
        self.handler = cast("ResponseHandler", handler)  # of which the head's part is over

    def finish(self) -> None:
        """Ends a tunnel from this side; what was sent before still goes out."""
        self.handler = None
        if self.is_closed:
            return
        self.resume()
        transport = self._transport
        has_eof = transport.can_write_eof()  # TLS has none, nor does it tell what isn't sent yet
        is_sent = has_eof and not transport.get_write_buffer_size()
        wait = LINGER_S if is_sent else self._pool.timeouts.idle
        self.deadline = self._pool.timers.now + wait
        if has_eof:
            transport.write_eof()
        else:
            transport.close()

    def pause(self) -> None:
        """Stops reading. A connection that was told to wait isn't idle, so no timeout runs."""
        if not self.is_closed and not self._is_paused:
            self._is_paused = True
            self.deadline = NEVER
            self._transport.pause_reading()

    def resume(self) -> None:
        if not self.is_closed and self._is_paused:
            self._is_paused = False
            self.deadline = self._pool.timers.now + self._pool.timeouts.idle
            self._transport.resume_reading()

    def has_delivered(self, size: int) -> bool:
        """Whether the upstream may have got any of the last `size` bytes sent; asked after a
        failure, and True unless the contrary is proved: a FIN tells what was received before it,
        while a reset tells nothing, since acknowledgements may be delayed."""
        if not self._has_seen_fin:
            return True
        sock = self._socket or self._transport.get_extra_info("socket")
        return sock is None or unacknowledged_bytes(sock) < size

    def abandon(self) -> None:
        """The response isn't wanted any more, so the connection can't be kept either."""
        self.handler = None
        self.abort()

    def abort(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._transport.abort()

    def check(self, now: float) -> None:
        if now < self.deadline:
            return
        self.deadline = NEVER
        if self.handler is None:
            self.abort()
        elif self._has_head:
            self._fail("upstream_timeout", "The upstream stopped in the middle of its answer.")
        else:
            self._fail("upstream_timeout", "The upstream did not answer in time.")

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # What is read at once is enough to hold. Not 0: uvloop's TLS would never resume.
        self._transport.set_write_buffer_limits(high=1)
        if transport.get_extra_info("ssl_object") is not None:
            with contextlib.suppress(OSError):  # no descriptor to be had
                fileno = transport.get_extra_info("socket").fileno()
                self._socket = socket.socket(fileno=os.dup(fileno))

    def eof_received(self) -> None:
        """Over TLS only called when TLS itself was ended: anybody on the way can send a FIN."""
        handler = self.handler
        if handler is None:
            self.abort()  # at once: the transport is lost a turn later, and would be used till then
        elif self._left < 0:
            self.handler = None
            handler.response_continues(b"", True)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        self._has_seen_fin = exc is None or isinstance(exc, BrokenPipeError)
        self._pool.timers.forget(self)
        self._pool.lost(self)
        if self.handler is not None:
            is_untouched = not self._has_head and not self._buffer and not self._informational
            self._fail(
                "upstream_broken",
                "The upstream closed the connection before its answer was complete.",
                is_untouched=is_untouched,
            )
        if self._socket is not None:
            self._socket.close()

    def pause_writing(self) -> None:
        """From here on it is the upstream that is slow."""
        self._is_writing_paused = True
        if self.handler is not None:
            if not self._has_head:
                self.deadline = self._pool.timers.now + self._pool.timeouts.response_header
            self.handler.pause_request()

    def resume_writing(self) -> None:
        self._is_writing_paused = False
        if self.handler is not None:
            if not self._has_head and not self._request_has_ended:
                self.deadline = NEVER
            self.handler.resume_request()

    def data_received(self, data: bytes) -> None:
        if self.handler is None:
            if self._left != _TUNNEL:
                self.abort()  # nobody asked
            return
        try:
            if self._has_head:
                if not self._is_paused:
                    self.deadline = self._pool.timers.now + self._pool.timeouts.idle
                self._receive_body(self.handler, data)
            else:
                self._receive_head(self.handler, data)
        except FramingError as exc:
            self._fail("upstream_broken", f"The upstream did not answer in HTTP/1.1: {exc}.")

    def _receive_head(self, handler: ResponseHandler, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        end = data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES) + 4
        if end < 4:
            if len(data) >= MAX_HEAD_BYTES:
                raise FramingError(f"its head is longer than {MAX_HEAD_BYTES} bytes")
            if data[:5] != b"HTTP/"[: len(data)] or data.count(b"\n") != data.count(b"\r\n"):
                raise FramingError("its head is malformed")  # and its end would never be found
            self._buffer = data
            return
        head = parse_response_head(data[:end])
        body = data[end:]
        if head.status >= 200:
            self._begin(handler, head, body)
            return
        if head.status == 101:
            self._switch(head, body)
            return
        self._informational += 1
        if self._informational > MAX_INFORMATIONAL:
            raise FramingError("too many 1xx responses")
        if body:
            self._receive_head(handler, body)

    def _begin(self, handler: ResponseHandler, head: ResponseHead, body: bytes) -> None:
        """Finds the end, by RFC 9112 section 6.3: no body, chunked, a length, or the close."""
        self._has_head = True
        self._is_reusable = head.is_reusable
        self.deadline = self._pool.timers.now + self._pool.timeouts.idle
        length = head.content_length
        if self._method == b"HEAD" or head.status == 204 or head.status == 304:
            length = 0
            head.has_body = head.is_chunked = False
        surplus = b""
        if head.is_chunked:
            self._chunked = decoder = ChunkedDecoder()
            body = decoder.feed(body)
            ends, surplus = decoder.is_complete, decoder.rest
        elif length >= 0:
            self._left = length - len(body)
            ends = self._left <= 0
            if self._left < 0:
                body, surplus = body[:length], body[length:]
        else:
            self._left = _UNTIL_CLOSE
            ends = False
        if ends:
            self._release(bool(surplus))
        handler.response_begins(head, body, ends)

    def _switch(self, head: ResponseHead, rest: bytes) -> None:
        switched, self._switched = self._switched, None
        if switched is None:
            raise FramingError("it switched protocols unasked")
        self._has_head = True
        self.deadline = self._pool.timers.now + self._pool.timeouts.idle
        switched(head, rest)

    def _receive_body(self, handler: ResponseHandler, data: bytes) -> None:
        decoder = self._chunked
        if decoder is not None:
            data = decoder.feed(data)
            if decoder.is_complete:
                self._release(bool(decoder.rest))
                handler.response_continues(data, True)
            elif data:
                handler.response_continues(data, False)
        elif self._left < 0:
            handler.response_continues(data, False)
        else:
            self._left -= len(data)
            if self._left > 0:
                handler.response_continues(data, False)
            else:
                surplus = self._left < 0
                if surplus:
                    data = data[: self._left]
                self._release(surplus)
                handler.response_continues(data, True)

    def _release(self, has_surplus: bool) -> None:
        """The response is complete: back to the pool, unless something speaks against it."""
        self.handler = None
        has_sent = self._request_has_ended and not self._is_writing_paused
        can_be_reused = self._is_reusable and has_sent and not has_surplus
        self._prepare()
        if self._is_paused:
            self.resume()
        if can_be_reused and not self.is_closed:
            self.is_reused = True
            self._pool.release(self)
        else:
            self.abort()

    def _fail(self, code: str, message: str, *, is_untouched: bool = False) -> None:
        handler, self.handler = self.handler, None
        self.abort()
        if handler is not None:
            handler.response_fails(UpstreamError(code, message, is_untouched=is_untouched))
