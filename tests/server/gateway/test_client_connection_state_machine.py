"""The client's connection, and all behind it, under anything that peers and the clock may do."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import msgspec
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

from llm_proxy.http1.framing import ChunkedDecoder
from llm_proxy.server.gateway.client_connection import ClientConnection
from llm_proxy.server.gateway.exchange import Exchange
from tests.http1.scripted_answers import BROKEN, FRAMINGS, Answer, make_answer
from tests.http1.simulation import MAX_PIECE, Link
from tests.server.gateway.simulated_gateway import (
    LARGEST_BODY,
    TOKEN,
    UNKNOWN_TOKEN,
    UPSTREAM_KEY,
    Planned,
    Received,
    SimulatedClient,
    SimulatedGateway,
    held_bytes,
)

# In user space of one connection: a read, on top of what was let in before the pause.
MAX_UNSENT: Final = MAX_PIECE + 16_384
MAX_HELD: Final = 256 * 1024
GARBAGE: Final = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "both": b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    "dots": b"GET /../manage HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "long path": b"GET /" + b"a" * 9000,
    "long head": b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"b" * 70_000,
    "CONNECT": b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    "blank lines": b"\r\n\r\n",
}
PIECES: Final = st.sampled_from([1, 3, 50, MAX_PIECE, MAX_PIECE])  # that a read brings
RARELY: Final = st.integers(0, 4)  # it happens when this is 0
UPSTREAM_FAILURES: Final = {
    *("upstream_unreachable", "upstream_broken", "upstream_timeout"),
    *("overloaded", "circuit_open", "request_timeout"),
}


class ClientConnectionMachine(RuleBasedStateMachine):
    steps = 0  # of all machines

    @initialize(
        failures=st.sampled_from([1000, 1000, 3]),
        concurrent=st.sampled_from([0, 0, 0, 2]),
        dials_at_once=st.sampled_from([True, True, False]),
    )
    def start(self, failures: int, concurrent: int, dials_at_once: bool) -> None:
        self.world = SimulatedGateway(breaker_failures=failures, max_concurrent=concurrent)
        self.dials_at_once = dials_at_once
        self.count = 0
        self.is_draining = False
        self.world.connect()

    # Clients.

    @precondition(lambda self: len(self.world.clients) < 4)
    @rule()
    def connect(self) -> None:
        self.world.connect()

    def _draw_client(self, data: Any) -> SimulatedClient:
        alive = [client for client in self.world.clients if not client.link.is_closed]
        client: SimulatedClient = data.draw(st.sampled_from(alive))
        return client

    def _has_clients(self) -> bool:
        return any(not client.link.is_closed for client in self.world.clients)

    @precondition(_has_clients)
    @rule(
        data=st.data(),
        kind=st.sampled_from(
            [
                *("json", "json", "chunked", "models", "delete", "head", "key", "1.0", "close"),
                *("expect", "no token", "bad token", "unknown", "path", "method", "health", "id"),
            ]
        ),
        size=st.sampled_from([0, 1, 50, 5000, 100_000]),
        times=st.sampled_from([1, 1, 1, 2, 5]),
        share=st.sampled_from([1.0, 1.0, 1.0, 1.0, 0.9, 0.3, 0.0]),
        piece=PIECES,
    )
    def request(
        self, data: Any, *, kind: str, size: int, times: int, share: float, piece: int
    ) -> None:
        client = self._draw_client(data)
        for _ in range(times):
            if not client.is_poisoned:
                client.plan(self._plan(kind, size))
        if client.can_send:
            client.send(int(len(client.outgoing) * share), piece)
            self._accept_dials()

    def _accept_dials(self) -> None:
        for dial in tuple(self.world.loop.dials) if self.dials_at_once else ():
            self.world.loop.do(dial.accept)

    def _plan(self, kind: str, size: int) -> Planned:
        self.count += 1
        identity = b"r%d" % self.count
        body = (b"%b:" % identity + b"x" * size) if size else b""
        return make_request(kind, identity, body)

    @precondition(_has_clients)
    @rule(
        data=st.data(),
        garbage=st.sampled_from(sorted(GARBAGE)) | st.binary(min_size=1, max_size=60),
        chance=RARELY,
    )
    def poison(self, data: Any, garbage: str | bytes, chance: int) -> None:
        if chance:
            return
        client = self._draw_client(data)
        client.is_poisoned = True
        client.outgoing += GARBAGE[garbage] if isinstance(garbage, str) else garbage

    @precondition(lambda self: any(client.can_send for client in self.world.clients))
    @rule(
        data=st.data(),
        size=st.sampled_from([1, 20, 150, 250, 10_000, 1_000_000, 1_000_000]),
        piece=PIECES,
    )
    def client_sends(self, data: Any, size: int, piece: int) -> None:
        senders = [client for client in self.world.clients if client.can_send]
        data.draw(st.sampled_from(senders)).send(size, piece)
        self._accept_dials()

    @precondition(_has_clients)
    @rule(data=st.data(), how=st.sampled_from(["half_close", "hang_up", "reset"]), chance=RARELY)
    def client_leaves(self, data: Any, how: str, chance: int) -> None:
        if chance:
            return
        client = self._draw_client(data)
        client.has_hung_up = True
        getattr(client.link, how)()

    @precondition(_has_clients)
    @rule(data=st.data(), room=st.sampled_from([0, 100, 70_000, -1]))
    def client_reads_or_not(self, data: Any, room: int) -> None:
        read_or_not(self._draw_client(data).link, room)

    # Upstreams.

    @precondition(lambda self: self.world.loop.dials)
    @rule(accepts=st.sampled_from([True, True, True, True, False]))
    def answer_dial(self, accepts: bool) -> None:
        dial = self.world.loop.dials[0]
        self.world.loop.do(dial.accept if accepts else dial.refuse)

    def _open_links(self) -> list[Link]:
        return [link for link in self.world.loop.links if not link.is_closed]

    def _asked(self) -> list[Link]:
        """Links with a request that isn't answered wholly."""
        return [link for link in self._open_links() if self._current(link) is not None]

    def _current(self, link: Link) -> tuple[int, Received] | None:
        requests = self.world.requests_of(link)
        if not requests:
            return None
        number = len(requests) - 1
        answer = self.world.answers.get((link, number))
        is_answered = answer is not None and answer.is_sent and not answer.ends_by_close
        return None if is_answered else (number, requests[-1])

    @precondition(lambda self: self._asked())
    @rule(
        data=st.data(),
        kind=st.sampled_from([*FRAMINGS, *FRAMINGS, *FRAMINGS, *BROKEN]),
        size=st.sampled_from([0, 10, 300, 150_000]),
        share=st.sampled_from([0.0, 0.3, 0.9, 1.0, 1.0, 1.0]),
        piece=PIECES,
        then=st.sampled_from(["", "", "", "", "half_close", "hang_up", "reset"]),
    )
    def upstream_answers(
        self, data: Any, *, kind: str, size: int, share: float, piece: int, then: str
    ) -> None:
        """Begins the answer to a request, or goes on with it."""
        link = data.draw(st.sampled_from(self._asked()))
        self._answer(link, kind, size=size, share=share, piece=piece)
        if then:
            getattr(link, then)()
        self._accept_dials()

    def _answer(self, link: Link, kind: str, *, size: int, share: float, piece: int) -> None:
        current = self._current(link)
        assert current is not None
        number, request = current
        answer = self.world.answers.get((link, number))
        if answer is None:
            body = b"data: " + request.header(b"x-request-id") + b"y" * size + b"\n\n"
            method = request.start_line.partition(b" ")[0]
            answer = self.world.answers[link, number] = make_answer(kind, body * 2, method=method)
        if not (link.has_left or link.is_reset):
            link.piece = MAX_PIECE if answer.surplus else piece
            link.send(answer.take(share))
            if answer.is_sent and answer.ends_by_close:
                link.hang_up()

    @precondition(_has_clients)
    @rule(
        data=st.data(),
        kind=st.sampled_from(["json", "chunked", "models", "head", "1.0", "1.0", "key"]),
        answer=st.sampled_from([*FRAMINGS, *FRAMINGS, *BROKEN]),
        sizes=st.tuples(st.sampled_from([0, 50, 5000]), st.sampled_from([0, 10, 300, 150_000])),
        share=st.sampled_from([0.3, 0.9, 0.99, 1.0, 1.0]),
        then=st.sampled_from(["", "", "half_close", "hang_up", "reset"]),
    )
    def converse(
        self, data: Any, *, kind: str, answer: str, sizes: tuple[int, int], share: float, then: str
    ) -> None:
        """A request and what is said to it, without anything between."""
        self.request(data, kind=kind, size=sizes[0], times=1, share=1.0, piece=MAX_PIECE)
        for link in self._asked()[-1:]:
            self._answer(link, answer, size=sizes[1], share=share, piece=MAX_PIECE)
            if then:
                getattr(link, then)()

    @precondition(lambda self: self._open_links())
    @rule(
        data=st.data(),
        how=st.sampled_from(["half_close", "hang_up", "reset", "loses"]),
        chance=RARELY,
    )
    def upstream_leaves(self, data: Any, how: str, chance: int) -> None:
        if chance:
            return
        link = data.draw(st.sampled_from(self._open_links()))
        if how == "loses":  # everything it is sent from now on
            link.is_deaf = True
        else:
            getattr(link, how)()

    @precondition(lambda self: self._open_links())
    @rule(data=st.data(), room=st.sampled_from([0, 100, 70_000, -1]))
    def upstream_reads_or_not(self, data: Any, room: int) -> None:
        read_or_not(data.draw(st.sampled_from(self._open_links())), room)

    # The clock and the operator.

    @rule(seconds=st.sampled_from([0.25, 0.25, 0.25, 0.25, 3.0, 3.0, 21.0, 61.0, 301.0]))
    def wait(self, seconds: float) -> None:
        self.world.timers.advance(seconds)
        self._accept_dials()

    @precondition(lambda self: not self.is_draining and self.count > 3)
    @rule(now=st.sampled_from([False, False, False, True]))
    def drain(self, now: bool) -> None:
        if now:
            self.is_draining = self.world.gateway.is_draining = True
            self.world.loop.do(self._drain_all)

    def _drain_all(self) -> None:
        for connection in tuple(self.world.connections):
            connection.drain()

    # What holds always.

    @invariant()
    def nothing_is_raised(self) -> None:
        type(self).steps += 1
        assert not self.world.loop.errors, self.world.loop.errors

    @invariant()
    def memory_is_bounded(self) -> None:
        for client in self.world.clients:
            assert len(client.link.unsent) <= MAX_UNSENT
            kinds = (ClientConnection, Exchange, ChunkedDecoder)
            assert held_bytes(client.link.protocol, kinds) <= MAX_HELD
        for link in self._open_links():
            assert len(link.unsent) <= MAX_UNSENT + MAX_PIECE  # what is sent again may be ahead

    @invariant()
    def each_answer_belongs_to_its_request(self) -> None:
        for client in self.world.clients:
            answers = client.answers()
            for planned, answer in zip(client.planned, answers, strict=False):
                self._check_answer(client, planned, answer)
            if not client.is_poisoned:
                assert len(answers) <= len(client.planned)
            assert all(answer.is_complete for answer in answers[:-1])

    def _check_answer(self, client: SimulatedClient, planned: Planned, answer: Received) -> None:
        assert client.sent > planned.end - len(planned.raw), "an answer before its request"
        if answer.header(b"x-scripted"):
            assert answer.header(b"llm-proxy-request-id") == planned.id
            assert not planned.code, "a request that had to be refused was answered"
            assert any(self._is_of(answer, script) for script in self._scripts(planned))
        elif answer.is_complete and planned.method != b"HEAD":
            code = msgspec.json.decode(answer.body)["error"]["code"]
            if planned.code and client.sent >= planned.end:
                assert code in (planned.code, "request_timeout"), code
            elif not planned.code and answer.header(b"llm-proxy-request-id") == planned.id:
                assert code in UPSTREAM_FAILURES, code

    def _scripts(self, planned: Planned) -> list[tuple[Link, Answer]]:
        return [
            (link, answer)
            for (link, number), answer in self.world.answers.items()
            if self.world.requests_of(link)[number].header(b"x-request-id") == planned.id
        ]

    def _is_of(self, answer: Received, script: tuple[Link, Answer]) -> bool:
        link, scripted = script
        body, _, error = answer.body.partition(b"event: error\n")
        if not scripted.body.startswith(body) or answer.status != scripted.status:
            return False
        if error:
            assert not answer.is_complete
        if not answer.is_complete:
            return True
        has_ended = link.has_read_fin or not scripted.ends_by_close
        return scripted.is_valid and has_ended and body == scripted.whole

    @invariant()
    def upstreams_get_what_was_sent(self) -> None:
        for link in self.world.loop.links:
            received = bytes(link.received)
            assert TOKEN not in received or b"GET /health " in received
            for request in self.world.requests_of(link):
                client, planned = self.world.planned(request.header(b"x-request-id"))
                assert planned.body.startswith(request.body)
                if request.is_complete:
                    assert request.body == planned.body
                    assert client.sent >= planned.end, "a cut request that looks whole"
                if not planned.is_control:
                    key = request.header(b"authorization")
                    assert key == b"Bearer " + UPSTREAM_KEY.encode()

    @invariant()
    def what_may_not_be_repeated_is_sent_once(self) -> None:
        times = Counter(
            request.header(b"x-request-id")
            for link in self.world.loop.links
            for request in self.world.requests_of(link)
        )
        for identity, count in times.items():
            _, planned = self.world.planned(identity)
            assert count <= (3 if planned.may_be_repeated else 1), (planned.method, count)

    @invariant()
    def nobody_works_for_a_client_that_has_left(self) -> None:
        for link in self._asked():
            number, request = self._current(link) or (0, None)
            assert request is not None
            client, _ = self.world.planned(request.header(b"x-request-id"))
            assert not client.link.is_closed, "the upstream goes on for nobody"

    @invariant()
    def each_exchange_is_recorded_once(self) -> None:
        ids = [record.request_id for record in self.world.records.all]
        assert len(ids) == len(set(ids))

    # The end: everybody does what is expected of them, and nothing may be left.

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self._finish_all()
            self._check_all_answered()
            self._check_records()
            self._grow_old()
        finally:
            self.world.close()

    def _finish_all(self) -> None:
        for _ in range(40 + self.count):  # each round answers one request of a client at least
            for dial in tuple(self.world.loop.dials):
                self.world.loop.do(dial.accept)
            for client in self.world.clients:
                client.link.read_on()
                if client.can_send:
                    client.send(1_000_000, MAX_PIECE)
            for link in self._open_links():
                link.read_on()
            for link in self._asked():
                if link in self._asked():
                    self._answer(link, "length", size=5, share=1.0, piece=MAX_PIECE)
            self.world.timers.advance(0.25)
            self._check_invariants()

    def _check_invariants(self) -> None:
        self.nothing_is_raised()
        self.each_answer_belongs_to_its_request()
        self.upstreams_get_what_was_sent()
        self.what_may_not_be_repeated_is_sent_once()
        self.nobody_works_for_a_client_that_has_left()
        self.each_exchange_is_recorded_once()

    def _check_all_answered(self) -> None:
        for client in self.world.clients:
            link = client.link
            if link.is_closed or link.end or client.has_hung_up or client.is_poisoned:
                continue
            if any(other.is_deaf or other.has_left for other in self._open_links()):
                continue  # that one's request waits for its timeout
            done = [answer for answer in client.answers() if answer.is_complete]
            assert len(done) == len(client.planned), "a request that is never answered"

    def _check_records(self) -> None:
        records = {record.request_id: record for record in self.world.records.all}
        for client in self.world.clients:
            for planned, answer in zip(client.planned, client.answers(), strict=False):
                identity = answer.header(b"llm-proxy-request-id")
                if planned.is_control or not identity:
                    continue
                record = records.get(identity.decode())
                is_running = not answer.is_complete and not client.link.is_closed
                assert record is not None or is_running, "an exchange without a record"
                if record is None or client.has_hung_up:
                    continue
                assert record.status_code == answer.status
                if not client.link.is_reset:
                    self._check_truncated(client, record.truncated, answer)

    def _check_truncated(
        self, client: SimulatedClient, is_truncated: bool, answer: Received
    ) -> None:
        """Whether the client read all that it was sent isn't known to the record."""
        if not is_truncated:
            assert answer.is_complete or not client.link.end or client.link.dropped

    def _grow_old(self) -> None:
        """Whatever is still open ends by itself; of pipelined requests to an upstream that is
        silent, one in each of the longer waits."""
        for _ in range(20):
            for seconds in (31.0, 61.0, 121.0, 301.0):
                for dial in tuple(self.world.loop.dials):
                    self.world.loop.do(dial.refuse)
                self.world.timers.advance(seconds)
        self.nothing_is_raised()
        assert all(client.link.is_closed for client in self.world.clients)
        assert not self._open_links()
        assert not self.world.connections
        assert not self.world.timers.watched
        assert self.world.gateway.running == 0
        self.each_exchange_is_recorded_once()


def read_or_not(link: Link, room: int) -> None:
    if room < 0:
        link.read_on()
    else:
        link.stop_reading(room)


def make_request(kind: str, identity: bytes, body: bytes) -> Planned:
    method, target, version = b"POST", b"/v1/chat/completions", b"HTTP/1.1"
    lines = [b"Host: proxy.test", b"X-Request-ID: " + identity]
    token, code, framing = TOKEN, "", "length"
    if kind in ("models", "delete", "head"):
        method = {"models": b"GET", "delete": b"DELETE", "head": b"HEAD"}[kind]
        target = b"/v1/files/f" if kind == "delete" else b"/openai/v1/models"
        body, framing = b"", "none"
    elif kind == "chunked":
        framing = "chunked"
    elif kind == "key":
        lines.append(b"Idempotency-Key: " + identity)
    elif kind == "1.0":
        version = b"HTTP/1.0"
    elif kind == "close":
        lines.append(b"Connection: close")
    elif kind == "expect":
        lines.append(b"Expect: 100-continue")
    elif kind == "path":
        target, code = b"/v1/nowhere", "endpoint_not_allowed"
    elif kind == "method":
        method, code = b"PATCH", "method_not_allowed"
    elif kind == "health":
        method, target, body, framing = b"GET", b"/health", b"", "none"
    elif kind in ("no token", "bad token", "unknown"):
        token = {"no token": b"", "bad token": b"sk-nonsense", "unknown": UNKNOWN_TOKEN}[kind]
        code = "missing_token" if kind == "no token" else "invalid_token"
    if token:
        lines.append(b"Authorization: Bearer " + token)
    raw_body = body
    if framing == "chunked":
        lines.append(b"Transfer-Encoding: chunked")
        raw_body = b"".join(
            b"%x\r\n%b\r\n" % (len(body[at : at + 999]), body[at : at + 999])
            for at in range(0, len(body), 999)
        )
        raw_body += b"0\r\n\r\n"
    elif framing == "length":
        lines.append(b"Content-Length: %d" % len(body))
    assert len(body) <= LARGEST_BODY
    return Planned(
        id=identity,
        method=method,
        raw=b"\r\n".join([b"%b %b %b" % (method, target, version), *lines, b"", raw_body]),
        body=body,
        code=code,
        is_control=kind == "health",
        keeps_alive=kind not in ("1.0", "close"),
        may_be_repeated=method != b"POST" or kind == "key",
    )


def test_client_connection_survives_anything() -> None:
    """`scripts/fuzz client-connection` does the same for hours."""
    run_state_machine_as_test(
        ClientConnectionMachine,
        settings=settings(
            max_examples=40,
            derandomize=True,  # the same every time: what is random belongs to scripts/fuzz
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
