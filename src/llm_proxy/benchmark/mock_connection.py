"""A client's connection to the mock: requests in, answers out, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol, cast

import httptools

from llm_proxy.benchmark.mock_answer import Answer, Refused
from llm_proxy.benchmark.mock_dialects import OPENAI
from llm_proxy.benchmark.mock_faults import NO_FAULTS
from llm_proxy.benchmark.mock_options import MockOptions
from llm_proxy.benchmark.mock_request import RawHeaders, ReceivedRequest, Request
from llm_proxy.benchmark.mock_sender import Sender
from llm_proxy.benchmark.mock_service import MockService
from llm_proxy.benchmark.mock_waits import Waits

_LARGEST_HEAD = 1024 * 1024
_LINGER_S = 1.0


class Server(Protocol):
    """What a connection needs of the server it belongs to."""

    options: MockOptions
    service: MockService
    waits: Waits
    requests: deque[ReceivedRequest]
    connections: set[MockConnection]


class MockConnection(asyncio.Protocol):
    _transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Request] = deque()
        self._sender: Sender | None = None
        self._under_way: Request | None = None  # the one that is being answered
        self._malformed: Refused | None = None
        self._owes_continue = False
        self.is_write_paused = False  # the client reads too slowly
        self.is_read_paused = False  # requests are waiting
        self._is_answering = False
        self._is_closing = False
        self._linger: asyncio.TimerHandle | None = None
        self._head_bytes = 0  # since the last complete head, of a head that is arriving
        self._last_active = 0.0
        self._begin()

    def _begin(self) -> None:
        self._url = b""
        self._headers: RawHeaders = []
        self._request: Request | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports don't inherit from asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._last_active = self._loop.time()
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._is_closing:
            self._note_hang_ups()
        self._is_closing = True
        self._server.connections.discard(self)
        if self._linger is not None:
            self._linger.cancel()
        if self._sender is not None:
            self._sender.abort()

    def _note_hang_ups(self) -> None:
        unanswered = [] if self._under_way is None else [self._under_way]
        for request in (*unanswered, *self._queue):
            self._server.service.hang_ups.note(request)

    def data_received(self, data: bytes) -> None:
        if self._is_closing or self._malformed is not None:
            return
        self._last_active = self._loop.time()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # nothing to upgrade to: it was answered as a request, its connection closes
        except httptools.HttpParserError as exc:
            self._malformed = Refused(400, f"This is not an HTTP/1.1 request: {exc}.")
        if self._request is None:
            self._head_bytes += len(data)
            if self._head_bytes > _LARGEST_HEAD:
                self._malformed = Refused(431, f"The head is larger than {_LARGEST_HEAD} bytes.")
        self._answer_next()

    def pause_writing(self) -> None:
        self.is_write_paused = True
        self._last_active = self._loop.time()
        if self._sender is not None:
            self._sender.pause()

    def resume_writing(self) -> None:
        self.is_write_paused = False
        if self._sender is not None:
            self._sender.resume()
        self._answer_next()

    # httptools' callbacks

    def on_message_begin(self) -> None:
        self._begin()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers come here too, after the head.
        if self._request is None:
            self._headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self._head_bytes = 0
        method = self._parser.get_method().decode()
        version = self._parser.get_http_version()
        request = Request(method, self._url, self._headers, version=version)
        request.keep_alive = self._parser.should_keep_alive() and not self._parser.should_upgrade()
        self._request = request
        self._server.service.prepare(request)
        if request.fields.get(b"expect", b"").lower() == b"100-continue" and version == "1.1":
            self._owes_continue = True
            self._pay_continue()

    def on_body(self, data: bytes) -> None:
        self._owes_continue = False
        if self._request is not None:
            self._request.feed(data)

    def on_message_complete(self) -> None:
        assert self._request is not None
        self._owes_continue = False
        self._server.requests.append(self._request.received())
        self._queue.append(self._request)
        self._begin()

    # Answering

    def _pay_continue(self) -> None:
        if self._owes_continue and self._sender is None and not self._queue:
            self._owes_continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _answer_next(self) -> None:
        """Starts on what is waiting, unless an answer is under way or the client doesn't read."""
        if self._is_answering:
            return
        self._is_answering = True
        while self._queue and self._sender is None and not self._has_to_stop():
            self._start(self._queue.popleft())
        self._is_answering = False
        if self._sender is None and not self._queue and not self._is_closing:
            if self._malformed is not None:
                self._refuse(self._malformed)
                return
            self._pay_continue()
        self._throttle_reading()

    def _has_to_stop(self) -> bool:
        return self.is_write_paused or self._is_closing

    def _start(self, request: Request) -> None:
        sender = Sender(
            self._transport,
            request,
            tokens_per_second=self._server.options.tokens_per_second,
            waits=self._server.waits,
            done=self._on_answered,
        )
        self._sender, self._under_way = sender, request
        sender.start(*self._server.service.answer(request))

    def _on_answered(self, keep_alive: bool) -> None:
        self._sender = self._under_way = None
        self._last_active = self._loop.time()
        if not keep_alive:
            self.close()
        self._answer_next()

    def _throttle_reading(self) -> None:
        """Nothing is read while requests are waiting, so that few can be."""
        if self._is_closing or self.is_read_paused is bool(self._queue):
            return
        self.is_read_paused = not self.is_read_paused
        if self.is_read_paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _refuse(self, refused: Refused) -> None:
        """Answers what isn't a request, and waits a moment so that the client can read it."""
        self._is_closing = True
        answer = Answer(status=refused.status, body=OPENAI.error(refused, ""))
        request = Request("GET", b"/", [])
        request.keep_alive = False
        # At once, whatever latency the server's options ask for.
        waits = Waits(MockOptions(), self._loop.time)
        sender = Sender(self._transport, request, tokens_per_second=0, waits=waits, done=_ignore)
        sender.start(answer, NO_FAULTS)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._linger = self._loop.call_later(_LINGER_S, self._transport.close)

    # Ending

    def close(self) -> None:
        """Once what was written has been sent."""
        self._is_closing = True
        self._transport.close()

    def abort(self) -> None:
        self._is_closing = True
        self._transport.abort()

    def is_idle_since(self, moment: float) -> bool:
        """Whether nothing has happened since, though it was the client's turn."""
        is_clients_turn = self._sender is None or self.is_write_paused
        return is_clients_turn and self._last_active < moment


def _ignore(keep_alive: bool) -> None:
    """After the answer to what wasn't a request, the linger timer closes."""
