"""One request of the generator under way, from the moment it is due until it is written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from time import monotonic_ns
from typing import Final

from llm_proxy.benchmark.notebook import Notebook
from llm_proxy.benchmark.request_bytes import RequestBytes
from llm_proxy.benchmark.samples import (
    BROKEN_STREAM,
    CANCELLED,
    CLIENT_ERROR,
    CONNECT,
    CUT,
    NONE,
    OK,
    RESET,
    SERVER_ERROR,
    TIMEOUT,
)
from llm_proxy.benchmark.server_timing import read_server_timing
from llm_proxy.benchmark.stream_meter import StreamMeter
from llm_proxy.http1.connection import UpstreamConnection, UpstreamError
from llm_proxy.http1.pool import Pool
from llm_proxy.http1.response_head import ResponseHead

_DIGEST_BYTES: Final = 8
_EVENT_STREAM: Final = b"text/event-stream"
_OUTCOMES: Final = {
    "upstream_unreachable": CONNECT,
    "overloaded": CONNECT,  # no file descriptor, or no port, is left
    "upstream_timeout": TIMEOUT,
}


@dataclass(slots=True, kw_only=True)
class Lane:
    """One target, as this process reaches it."""

    index: int
    pool: Pool
    requests: RequestBytes


@dataclass(slots=True, kw_only=True)
class CallBook:
    """What all calls of a run share."""

    notebook: Notebook
    method: bytes
    started_ns: int = 0
    makes_digests: bool = False
    reconnects: int = 0
    shortest_stream: int = 1_000_000  # events of the shortest one that came whole


class Call:
    """Used again for the next request when `done` was called, which may begin it at once."""

    __slots__ = (
        "_body",
        "_book",
        "_cancel_after",
        "_connection",
        "_done",
        "_due",
        "_first_byte",
        "_has_head",
        "_hash",
        "_is_second_try",
        "_lane",
        "_meter",
        "_number",
        "_pair",
        "_proxy",
        "_received",
        "_sent",
        "_sent_bytes",
        "_status",
        "_upstream",
        "outcome",
    )

    def __init__(self, book: CallBook, done: Callable[[Call], None]) -> None:
        self._book = book
        self._done = done
        self._connection: UpstreamConnection | None = None
        self.outcome = OK  # of the last request

    def begin(
        self,
        lane: Lane,
        *,
        number: int,
        body: int,
        due: int = 0,
        pair: int = NONE,
        cancel_after: int = 0,
    ) -> None:
        """`due` is in `monotonic_ns`, 0: now; `cancel_after` so many tokens of a stream hang up."""
        self._lane = lane
        self._number = number
        self._body = body
        self._pair = pair
        # Those that are over before they can be hung up on would be missing from the share.
        self._cancel_after = min(cancel_after, max(self._book.shortest_stream - 1, 1))
        self._is_second_try = self._has_head = False
        self._status = self._received = self._sent_bytes = 0
        self._first_byte = self._proxy = self._upstream = NONE
        self._meter: StreamMeter | None = None
        self._hash: blake2b | None = None
        self._sent = monotonic_ns()
        self._due = due or self._sent
        lane.pool.acquire(self)

    # The pool's side.

    def upstream_ready(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        data = self._lane.requests.request(self._number, self._body)
        self._sent_bytes = len(data)
        connection.send(self, self._book.method, data, True)

    def response_begins(self, head: ResponseHead, body: bytes, ends: bool) -> None:
        self._has_head = True
        self._status = head.status
        timing = read_server_timing(head.lines)
        if timing is not None:
            self._proxy, self._upstream = timing
        if head.content_type.startswith(_EVENT_STREAM) and head.status < 400:
            self._meter = StreamMeter()
        if body or ends:
            self.response_continues(body, ends)

    def response_continues(self, body: bytes, ends: bool) -> None:
        if body:
            if self._first_byte < 0:
                self._first_byte = (monotonic_ns() - self._sent) // 100
            self._received += len(body)
            if self._book.makes_digests:
                if self._hash is None:
                    self._hash = blake2b(digest_size=_DIGEST_BYTES)
                self._hash.update(body)
            if self._meter is not None:
                self._meter.feed(body, (monotonic_ns() - self._sent) // 100)
                if 0 < self._cancel_after <= self._meter.events and not ends:
                    self._hang_up()
                    return
        if ends:
            self._end(self._outcome_of_answer())

    def response_fails(self, error: UpstreamError) -> None:
        connection, self._connection = self._connection, None
        was_kept = connection is not None and connection.is_reused
        if error.is_untouched and was_kept and not self._is_second_try:
            # The server closed it just then, as it may (RFC 9112 section 9.3.1): no failure.
            self._is_second_try = True
            self._book.reconnects += 1
            self._lane.pool.open(self)
            return
        outcome = _OUTCOMES.get(error.code)
        self._end((CUT if self._has_head else RESET) if outcome is None else outcome)

    def pause_request(self) -> None:
        """The request was handed over whole."""

    def resume_request(self) -> None:
        pass

    # The end.

    def give_up(self, *, is_stopped: bool) -> None:
        """The run has ended before the answer; one that was on its way is no error."""
        self._break_off(CANCELLED if is_stopped or self._first_byte >= 0 else TIMEOUT)

    def time_out(self, now_ns: int, after_ns: int) -> None:
        """If it takes longer than that, however steadily its answer comes."""
        if now_ns - self._sent > after_ns:
            self._break_off(TIMEOUT)

    def _break_off(self, outcome: int) -> None:
        self._lane.pool.cancel(self)
        if self._connection is not None and self._connection.handler is self:
            self._connection.abandon()
        self._end(outcome)

    def _hang_up(self) -> None:
        assert self._connection is not None
        self._connection.abandon()
        self._end(CANCELLED)

    def _outcome_of_answer(self) -> int:
        if self._status >= 400:
            return SERVER_ERROR if self._status >= 500 else CLIENT_ERROR
        meter = self._meter
        if meter is not None and (meter.has_error or not meter.is_complete):
            return BROKEN_STREAM
        if meter is not None and meter.events:
            self._book.shortest_stream = min(self._book.shortest_stream, meter.events)
        return OK

    def _end(self, outcome: int) -> None:
        book, samples = self._book, self._book.notebook.samples
        service = monotonic_ns() - self._sent
        self.outcome = outcome
        self._connection = None
        samples.lane.append(self._lane.index)
        samples.outcome.append(outcome)
        samples.status.append(self._status)
        samples.due.append((self._due - book.started_ns) // 100)
        samples.late.append((self._sent - self._due) // 100)
        samples.service.append(service // 100)
        samples.first_byte.append(self._first_byte)
        samples.received.append(self._received)
        samples.sent.append(self._sent_bytes)
        samples.proxy.append(self._proxy)
        samples.upstream.append(self._upstream)
        samples.pair.append(self._pair)
        samples.body.append(self._body)
        samples.digest.append(self._digest() if outcome == OK else 0)
        self._note_stream()
        self._done(self)

    def _note_stream(self) -> None:
        samples, meter = self._book.notebook.samples, self._meter
        if meter is None:
            samples.first_token.append(NONE)
            samples.second_token.append(NONE)
            samples.last_token.append(NONE)
            samples.tokens.append(0)
            samples.stalls.append(0)
            samples.gap.append(NONE)
            return
        samples.first_token.append(meter.first_token)
        samples.second_token.append(meter.second_token)
        samples.last_token.append(meter.last_token)
        samples.tokens.append(meter.tokens)
        samples.stalls.append(meter.stalls())
        samples.gap.append(meter.mean_gap())
        self._book.notebook.note_gaps(self._lane.index, meter.gaps)

    def _digest(self) -> int:
        return 0 if self._hash is None else int.from_bytes(self._hash.digest(), "big") or 1
