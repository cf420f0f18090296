"""The upstream connection under anything that a peer, a handler and the clock may do to it."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from llm_proxy.http1.connection import UpstreamConnection, UpstreamError
from llm_proxy.http1.origin import Origin
from llm_proxy.http1.pool import Pool
from llm_proxy.http1.response_head import ResponseHead
from llm_proxy.providers import Connection, Timeouts
from tests.http1.scripted_answers import BROKEN, FRAMINGS, Answer, make_answer
from tests.http1.simulation import MAX_PIECE, Link, SimulatedLoop, SimulatedTimers

MAX_CONNECTIONS: Final = 3
TIMEOUTS: Final = Timeouts(connect=5.0, response_header=20.0, idle=30.0)

BODIES: Final = st.binary(max_size=40) | st.just(b"z" * 500)


class Handler:
    """A request, what came of it, and the checks that each call makes."""

    def __init__(self, machine: ConnectionMachine, method: bytes, body: bytes) -> None:
        self.machine = machine
        self.method = method
        self.unsent_body = body
        self.raw = b""
        self.link: Link | None = None
        self.connection: UpstreamConnection | None = None
        self.is_first_of_link = True
        self.head: ResponseHead | None = None
        self.body = b""
        self.has_ended = False
        self.error: UpstreamError | None = None
        self.is_abandoned = False
        self.is_paused = False
        self.answer: Answer | None = None

    @property
    def is_over(self) -> bool:
        return self.has_ended or self.error is not None or self.is_abandoned

    def upstream_ready(self, connection: UpstreamConnection) -> None:
        assert not self.is_over and self.connection is None
        self.connection = connection
        self.link = self.machine.link_of(connection)
        before = self.machine.busy.get(self.link)  # who is told of the end right after this
        is_free = before is None or (before.answer is not None and before.answer.is_sent)
        assert is_free, "a connection that answers somebody else"
        self.is_first_of_link = self.link not in self.machine.used
        self.machine.used.add(self.link)
        self.machine.busy[self.link] = self
        self.raw = b"%b / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (
            self.method,
            len(self.unsent_body),
        )
        connection.send(self, self.method, self.raw, not self.unsent_body)

    def response_begins(self, head: ResponseHead, body: bytes, ends: bool) -> None:
        assert self.head is None
        self.head = head
        self.response_continues(body, ends)

    def response_continues(self, body: bytes, ends: bool) -> None:
        assert self.head is not None and not self.is_over
        assert not (self.is_paused and body), "read while it should not"
        self.body += body
        if ends:
            self.has_ended = True
            self._leave()

    def response_fails(self, error: UpstreamError) -> None:
        assert not self.is_over
        self.error = error
        self._leave()

    def pause_request(self) -> None:
        assert not self.is_over

    def resume_request(self) -> None:
        assert not self.is_over

    def abandon(self) -> None:
        self.is_abandoned = True
        if self.connection is None:
            self.machine.pool.cancel(self)
        else:
            self.connection.abandon()
            self._leave()

    def _leave(self) -> None:
        if self.link is not None and self.machine.busy.get(self.link) is self:
            del self.machine.busy[self.link]


class ConnectionMachine(RuleBasedStateMachine):
    steps = 0  # of all machines

    @initialize()
    def start(self) -> None:
        self.loop = SimulatedLoop()
        self.used: set[Link] = set()
        self.busy: dict[Link, Handler] = {}
        self.handlers: list[Handler] = []
        self.loop.do(self._build)

    def _build(self) -> None:
        self.timers = SimulatedTimers(self.loop)
        self.pool = Pool(
            Origin(host="192.0.2.1", port=80),
            self.timers,
            timeouts=TIMEOUTS,
            limits=Connection(max_idle_conns=2, max_conns=MAX_CONNECTIONS, idle_timeout=60.0),
        )

    def link_of(self, connection: UpstreamConnection) -> Link:
        return next(link for link in self.loop.links if link.protocol is connection)

    def _running(self) -> list[Handler]:
        return [handler for handler in self.busy.values() if handler.connection is not None]

    # The handlers.

    @rule(
        method=st.sampled_from([b"GET", b"POST", b"HEAD"]),
        size=st.sampled_from([0, 0, 10, 3000, 200_000]),
    )
    def ask(self, method: bytes, size: int) -> None:
        handler = Handler(self, method, b"x" * size)
        self.handlers.append(handler)
        self.loop.do(self.pool.acquire, handler)

    @precondition(lambda self: self._running())
    @rule(data=st.data(), size=st.sampled_from([1, 500, 70_000, 1_000_000]))
    def send_more(self, data: Any, size: int) -> None:
        handler = data.draw(st.sampled_from(self._running()))
        piece = handler.unsent_body[:size]
        if piece:
            handler.unsent_body = handler.unsent_body[size:]
            handler.raw += piece
            self.loop.do(handler.connection.send_more, piece, not handler.unsent_body)

    @precondition(lambda self: self._running())
    @rule(data=st.data(), pauses=st.booleans())
    def pause_or_resume(self, data: Any, pauses: bool) -> None:
        handler = data.draw(st.sampled_from(self._running()))
        handler.is_paused = pauses
        self.loop.do(handler.connection.pause if pauses else handler.connection.resume)

    @precondition(lambda self: any(not handler.is_over for handler in self.handlers))
    @rule(data=st.data())
    def abandon(self, data: Any) -> None:
        handler = data.draw(st.sampled_from([one for one in self.handlers if not one.is_over]))
        self.loop.do(handler.abandon)
        if handler.link is not None:
            assert handler.link.is_closed, "an abandoned request goes on"

    # The peer.

    @precondition(lambda self: self.loop.dials)
    @rule(accepts=st.sampled_from([True, True, True, False]))
    def answer_dial(self, accepts: bool) -> None:
        dial = self.loop.dials[0]
        self.loop.do(dial.accept if accepts else dial.refuse)

    def _draw_link(self, data: Any) -> Link:
        links = [link for link in self.loop.links if not link.is_closed]
        link: Link = data.draw(st.sampled_from(links))
        return link

    def _has_links(self) -> bool:
        return any(not link.is_closed for link in self.loop.links)

    @precondition(lambda self: self._running())
    @rule(
        data=st.data(),
        kind=st.sampled_from([*FRAMINGS, *FRAMINGS, *BROKEN]),
        body=BODIES,
        share=st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0, 1.0, 1.0]),
        piece=st.sampled_from([1, 2, 5, MAX_PIECE]),
    )
    def answer(self, data: Any, kind: str, body: bytes, share: float, piece: int) -> None:
        """Begins the answer to a request, or goes on with it."""
        handler = data.draw(st.sampled_from(self._running()))
        if handler.answer is None:
            handler.answer = make_answer(kind, body, method=handler.method)
        self._send_answer(handler, share, piece)

    @rule(
        method=st.sampled_from([b"GET", b"POST", b"HEAD"]),
        size=st.sampled_from([0, 0, 10, 200_000]),
        kind=st.sampled_from([*FRAMINGS, *FRAMINGS, *BROKEN]),
        body=BODIES,
        share=st.sampled_from([0.5, 0.9, 1.0, 1.0]),
        then=st.sampled_from(["", "", "half_close", "hang_up", "reset"]),
    )
    def converse(
        self, *, method: bytes, size: int, kind: str, body: bytes, share: float, then: str
    ) -> None:
        """A request and what is said to it, without anything between."""
        self.ask(method=method, size=size)
        for dial in tuple(self.loop.dials):
            self.loop.do(dial.accept)
        handler = self.handlers[-1]
        if handler.link is not None and not handler.is_over:
            handler.answer = make_answer(kind, body, method=method)
            self._send_answer(handler, share, MAX_PIECE)
            if then:
                getattr(handler.link, then)()

    def _send_answer(self, handler: Handler, share: float, piece: int) -> None:
        answer, link = handler.answer, handler.link
        assert answer is not None and link is not None
        if not (link.has_left or link.is_reset):
            link.piece = MAX_PIECE if answer.surplus else piece
            link.send(answer.take(share))

    @precondition(lambda self: self._has_links())
    @rule(data=st.data(), how=st.sampled_from(["half_close", "hang_up", "reset"]))
    def leave(self, data: Any, how: str) -> None:
        getattr(self._draw_link(data), how)()

    @precondition(lambda self: self._has_links())
    @rule(data=st.data())
    def say_something_unasked(self, data: Any) -> None:
        link = self._draw_link(data)
        if link not in self.busy:
            link.send(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
            assert link.is_closed

    @precondition(lambda self: self._has_links())
    @rule(data=st.data(), room=st.sampled_from([0, 10, 100_000, -1]))
    def stop_or_go_on_reading(self, data: Any, room: int) -> None:
        link = self._draw_link(data)
        if room < 0:
            link.read_on()
        else:
            link.stop_reading(room)

    # The clock.

    @rule(seconds=st.sampled_from([0.25, 1.0, 6.0, 25.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.timers.advance(seconds)

    # What holds always.

    @invariant()
    def nothing_is_raised(self) -> None:
        type(self).steps += 1
        assert not self.loop.errors, self.loop.errors

    @invariant()
    def answers_are_true(self) -> None:
        for handler in self.handlers:
            answer = handler.answer
            expected = answer.body if answer is not None else b""
            if answer is not None and not answer.is_valid:
                assert not handler.has_ended, "an answer that nobody can understand"
                continue
            assert expected.startswith(handler.body)
            if handler.has_ended:
                assert answer is not None and handler.link is not None
                assert handler.body == answer.whole, "a cut answer that looks whole"
                assert handler.link.has_read_fin or not answer.ends_by_close

    @invariant()
    def no_more_connections_than_allowed(self) -> None:
        alive = [link for link in self.loop.links if not link.is_closed]
        assert len(alive) + len(self.loop.dials) <= MAX_CONNECTIONS

    @invariant()
    def doubtful_connections_are_not_kept(self) -> None:
        for handler in self.handlers:
            if handler.is_over and handler.link is not None and not handler.link.is_closed:
                answer = handler.answer
                assert handler.has_ended and answer is not None
                assert answer.keeps_connection and not answer.ends_by_close
                assert not handler.unsent_body

    @invariant()
    def requests_arrive_as_they_were_sent(self) -> None:
        for link, handler in self.busy.items():
            got = bytes(link.received)
            if handler.is_first_of_link:
                assert handler.raw.startswith(got)

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self._end()
        finally:
            self.loop.close()

    def _end(self) -> None:
        """Every request comes to an end, whether the peer goes on or is silent for ever."""
        for _ in range(3):
            for seconds in (6.0, 21.0, 31.0, 61.0):
                for handler in self._running():
                    if handler.is_paused:
                        handler.is_paused = False
                        self.loop.do(handler.connection.resume)  # type: ignore[union-attr]
                for dial in tuple(self.loop.dials):
                    self.loop.do(dial.accept)
                for handler in self._running():
                    if handler.unsent_body and handler.connection is not None:
                        body, handler.unsent_body = handler.unsent_body, b""
                        handler.raw += body
                        self.loop.do(handler.connection.send_more, body, True)
                self.timers.advance(seconds)
        self.nothing_is_raised()
        self.answers_are_true()
        assert all(handler.is_over for handler in self.handlers), "a request without an end"
        assert all(link.is_closed for link in self.loop.links)
        assert not self.timers.watched
        self.loop.run_until_complete(self.pool.close())


def test_upstream_connection_survives_anything() -> None:
    """`scripts/fuzz upstream-connection` does the same for hours."""
    run_state_machine_as_test(
        ConnectionMachine,
        settings=settings(
            max_examples=40,
            derandomize=True,  # the same every time: what is random belongs to scripts/fuzz
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
