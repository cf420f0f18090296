"""Sends one answer: late, paced, stalled, corrupted, encoded or cut, as asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from http import HTTPStatus

from llm_proxy.benchmark.mock_answer import Answer, Event
from llm_proxy.benchmark.mock_encoding import Encoder, new_encoder
from llm_proxy.benchmark.mock_faults import Faults
from llm_proxy.benchmark.mock_request import Request
from llm_proxy.benchmark.mock_waits import Waits

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_BODILESS = (204, 304)
_TIMER_RESOLUTION_S = 0.001


class Sender:
    """One answer on its way out; `done` is called once, with whether the connection lives on."""

    def __init__(
        self,
        transport: asyncio.Transport,
        request: Request,
        *,
        tokens_per_second: float,
        waits: Waits,
        done: Callable[[bool], None],
    ) -> None:
        self._transport = transport
        self._request = request
        self._pace = tokens_per_second
        self._waits = waits
        self._done = done
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle | None = None
        self._is_paused = False
        self._is_chunked = False
        self._encoder: Encoder | None = None
        self._started_at = 0.0
        self._events_sent = 0
        self._events: Iterator[Event] = iter(())
        self._next: Event | None = None
        self._is_streaming = False

    def start(self, answer: Answer, faults: Faults) -> None:
        self._answer = answer
        self._faults = faults
        self._stall_after = faults.stall_after
        delay = self._waits.before_head_s(faults)
        if delay:
            self._timer = self._loop.call_later(delay, self._send)
        else:
            self._send()

    def abort(self) -> None:
        """The connection is gone: stop, without calling `done`."""
        if self._timer is not None:
            self._timer.cancel()
        self._is_paused = True

    def pause(self) -> None:
        self._is_paused = True

    def resume(self) -> None:
        self._is_paused = False
        if self._is_streaming and self._timer is None:
            self._stream()

    def _send(self) -> None:
        self._timer = None
        if self._waits.has_freezes and self._is_frozen(self._send):
            return
        if self._faults.cut_head:
            self._finish(keep_alive=False)
            return
        if self._faults.encoding is not None:
            self._encoder = new_encoder(self._faults.encoding)
        if self._answer.events is None or self._answer.status in _BODILESS:
            self._send_plain()
        else:
            self._events = self._answer.events
            self._start_stream()

    def _send_plain(self) -> None:
        answer = self._answer
        body = answer.body
        if self._faults.corrupt is not None:
            body = _corrupted(body, self._faults.corrupt - 1)
        if self._encoder is not None:
            body = self._encoder.encode(body) + self._encoder.finish()
        keep_alive = self._request.keep_alive
        length = b"" if answer.status == 204 else b"content-length: %d\r\n" % len(body)
        head = self._head(length, keep_alive)
        if self._request.method == "HEAD" or answer.status in _BODILESS:
            body = b""
        cut = self._faults.cut
        if cut is not None and cut < len(body):
            body = body[:cut]
            keep_alive = False
        self._transport.write(head + body)
        self._finish(keep_alive=keep_alive)

    def _start_stream(self) -> None:
        # HTTP/1.0 knows no chunks: there the end of the connection is the end of the body.
        self._is_chunked = self._request.version == "1.1"
        framing = b"transfer-encoding: chunked\r\n" if self._is_chunked else b""
        keep_alive = self._request.keep_alive and self._is_chunked
        self._transport.write(self._head(framing + b"cache-control: no-cache\r\n", keep_alive))
        self._started_at = self._loop.time()
        self._is_streaming = True
        self._next = next(self._events, None)
        self._stream()

    def _stream(self) -> None:
        """Sends the events that are due, each by itself, until one has to wait."""
        self._timer = None
        while not self._is_paused and not self._transport.is_closing():
            if self._events_sent == self._faults.cut:
                self._finish(keep_alive=False)
                return
            if self._next is None:
                self._end_stream()
                return
            tokens, data = self._next
            if self._has_to_wait(tokens):
                return
            self._events_sent += 1
            if self._events_sent == self._faults.corrupt:
                data = _corrupted(data, len(data) // 2)
            self._write_piece(self._encoder.encode(data) if self._encoder else data)
            self._next = next(self._events, None)
            if not self._pace:
                # One event each turn of the loop, so that all streams move on together.
                self._timer = self._loop.call_soon(self._stream)
                return

    def _has_to_wait(self, tokens: int) -> bool:
        if self._waits.has_freezes and self._is_frozen(self._stream):
            return True
        if self._events_sent == self._stall_after:
            self._stall_after = None
            self._started_at += self._faults.stall_s  # the pace goes on from there
            self._timer = self._loop.call_later(self._faults.stall_s, self._stream)
            return True
        if not self._pace:
            return False
        wait = self._started_at + tokens / self._pace - self._loop.time()
        if wait > 0:
            self._timer = self._loop.call_later(max(wait, _TIMER_RESOLUTION_S), self._stream)
        return wait > 0

    def _is_frozen(self, go_on: Callable[[], None]) -> bool:
        left = self._waits.frozen_s()
        if left:
            self._timer = self._loop.call_later(max(left, _TIMER_RESOLUTION_S), go_on)
        return left > 0

    def _end_stream(self) -> None:
        if self._encoder is not None:
            self._write_piece(self._encoder.finish())
        if self._is_chunked:
            self._transport.write(b"0\r\n\r\n")
        self._finish(keep_alive=self._request.keep_alive and self._is_chunked)

    def _finish(self, *, keep_alive: bool) -> None:
        self._is_streaming = False
        self._done(keep_alive)

    def _write_piece(self, data: bytes) -> None:
        if self._is_chunked and data:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._transport.write(data)

    def _head(self, framing: bytes, keep_alive: bool) -> bytes:
        answer = self._answer
        phrase = _PHRASES.get(answer.status, "Unknown").encode()
        encoding = b""
        if self._faults.encoding is not None:
            encoding = b"content-encoding: %s\r\n" % self._faults.encoding.encode()
        return b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\n%b%b%b%b\r\n" % (
            answer.status,
            phrase,
            answer.content_type,
            answer.headers,
            encoding,
            framing,
            self._connection(keep_alive),
        )

    def _connection(self, keep_alive: bool) -> bytes:
        if not keep_alive:
            return b"connection: close\r\n"
        # HTTP/1.0 clients have to be told (RFC 9112 9.3).
        return b"" if self._request.version == "1.1" else b"connection: keep-alive\r\n"


def _corrupted(data: bytes, at: int) -> bytes:
    """With another byte there; unchanged when it ends before."""
    if at >= len(data):
        return data
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
