"""One request and its response, in the steps of the design: route, admit, forward, relay, record.

The first steps are in `admission.py`. A refusal can come from every step; `refuse` answers it.
Nothing here waits: where something isn't there yet, the exchange is called back.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Final

from llm_proxy.errors import Refusal
from llm_proxy.events.record import NO_PARTS, RECORD
from llm_proxy.http1.connection import UpstreamConnection, UpstreamError
from llm_proxy.http1.framing import LAST_CHUNK, frame_chunk
from llm_proxy.http1.response_head import ResponseHead
from llm_proxy.server.gateway.admission import Admission
from llm_proxy.server.gateway.answers import refusal_answer, stream_error_event
from llm_proxy.server.gateway.capture import Capture
from llm_proxy.server.gateway.cors import add_cors, allowed_origin, answer_preflight
from llm_proxy.server.gateway.gateway import Gateway
from llm_proxy.server.gateway.limiter import NO_SLOTS
from llm_proxy.server.gateway.plan import Plan
from llm_proxy.server.gateway.replay import wait_before_replay
from llm_proxy.server.gateway.request_head import RequestHead
from llm_proxy.server.gateway.tunnel import Tunnel

if TYPE_CHECKING:
    from llm_proxy.server.gateway.client_connection import ClientConnection

MAX_QUEUED_BYTES: Final = 4096  # of a body whose upstream connection isn't there; then one read
MAX_REPLAY_BYTES: Final = 65536  # of a request that can be sent a second time


class Exchange(Admission):
    __slots__ = (
        "_capture",
        "_content_encoding",
        "_first_byte_at",
        "_forwarded",
        "_frames_response",
        "_has_begun",
        "_headed_at",
        "_is_close_delimited",
        "_is_end_framed",
        "_is_forwarding",
        "_is_stream",
        "_last",
        "_replay",
        "_response_size",
        "_retry",
        "_sent_at",
        "_status",
        "_tries",
        "_upstream",
    )

    def __init__(self, gateway: Gateway, client: ClientConnection, head: RequestHead) -> None:
        super().__init__(gateway, client, head)
        # Towards the upstream.
        self._upstream: UpstreamConnection | None = None
        self._tries = 0  # connections that the request was sent over
        self._retry: asyncio.TimerHandle | None = None
        self._is_forwarding = False
        self._is_end_framed = False  # the last chunk of the request's body
        self._forwarded = b""  # the request's head as the upstream gets it
        self._replay: bytes | None = None  # all that was sent, while it is short
        self._sent_at = 0.0
        self._headed_at = 0.0
        # The response.
        self._status = 0
        self._has_begun = False
        self._frames_response = False
        self._is_close_delimited = False
        self._is_stream = False
        self._content_encoding = ""
        self._first_byte_at = 0.0
        self._response_size = 0
        self._last = b""
        self._capture: Capture | None = None  # of it, for the record

    # 5. Forward.

    def _forward(self, head: bytes) -> None:
        assert self._plan is not None
        self._is_forwarding = True
        self._forwarded = head
        if not self._body_ends:
            self._invite_body()
        self._sent_at = perf_counter()
        self._plan.route.upstream.pool.acquire(self)

    def upstream_ready(self, connection: UpstreamConnection) -> None:
        self._upstream = connection
        if not self._tries and self._token is not None:
            self._gateway.tokens.accounts.sent(self._token.account)
        self._tries += 1
        body = self._framed_body()
        data = self._forwarded + body if body else self._forwarded
        self._replay = data if len(data) <= MAX_REPLAY_BYTES else None
        if not self._body_ends:
            self._client.resume_reading()  # before sending, which may pause it
        if self._plan is not None and self._plan.offers_websocket:
            connection.offer_switch(self._switched)
        connection.send(self, self._head.method, data, self._body_ends)

    def _framed_body(self) -> bytes:
        """What of the body is here, framed for the upstream."""
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body = []
        if not self._head.is_chunked:
            return body
        framed = frame_chunk(body) if body else b""
        if not self._body_ends or self._is_end_framed:
            return framed
        self._is_end_framed = True  # once: what is sent again holds it
        return framed + LAST_CHUNK

    def body_arrives(self, data: bytes, ends: bool) -> None:
        if self._is_done:
            return
        self._body_ends = ends
        self._body_size += len(data)
        if data:
            self._body.append(data)
        try:
            self._take_body()
        except Refusal as refusal:
            self.refuse(refusal)

    def _take_body(self) -> None:
        if self._is_forwarding:
            assert self._plan is not None
            self._check_size(self._plan.route.upstream.max_body)
            if self._upstream is not None:
                self._send_body(self._upstream)
                return
        elif self._is_waiting_for_body:
            self._admit()
            return
        if self._body_size > MAX_QUEUED_BYTES:
            self._client.pause_reading()

    def _send_body(self, upstream: UpstreamConnection) -> None:
        data = self._framed_body()
        if self._replay is not None:
            whole = self._replay + data
            self._replay = whole if len(whole) <= MAX_REPLAY_BYTES else None
        upstream.send_more(data, self._body_ends)

    def pause_request(self) -> None:
        self._client.pause_reading()

    def resume_request(self) -> None:
        self._client.resume_reading()

    # 6. Relay.

    def response_begins(self, head: ResponseHead, body: bytes, ends: bool) -> None:
        self._headed_at = now = perf_counter()
        self._has_begun = True
        status = self._status = head.status
        breaker = self._breaker
        if breaker is not None and (status >= 500 or breaker.is_tripped):
            breaker.answered(self, status)
        if not ends:
            self._replay = None
            self._forwarded = b""
        if self.keeps_alive and (not self._body_ends or self._gateway.is_draining):
            self.keeps_alive = False
        lines = self._response_lines(head)
        content_type = head.content_type
        self._is_stream = content_type.startswith(b"text/event-stream")
        whole = b""
        recorder = self._gateway.recorder
        if recorder is not None and (self._is_stream or b"json" in content_type):
            encoding = self._content_encoding = head.content_encoding.decode("latin-1")
            if ends:
                whole = body
            else:
                self._capture = Capture(recorder, encoding, is_stream=self._is_stream)
        if body:
            self._first_byte_at = now
            self._response_size = len(body)
            self._last = body
            if self._capture is not None:
                self._capture.add(body)
            if self._frames_response:
                body = frame_chunk(body)
        if ends:
            self._upstream = None  # others may use it now: a slow client must not pause it
            if self._frames_response:
                body += LAST_CHUNK
        self._client.write(lines + body)
        if ends:
            self._complete(whole)
        elif self._client.is_writing_paused:  # since the 100 Continue: it isn't told again
            self.pause_response()

    def _response_lines(self, head: ResponseHead) -> bytes:
        """The upstream's head with our lines added, and how the body will be framed."""
        own = b""
        if head.content_length < 0 and head.has_body:
            if self._head.is_http_10:
                self._is_close_delimited = True
                self.keeps_alive = False
            else:
                self._frames_response = True
                own = b"Transfer-Encoding: chunked\r\n"
        if not self.keeps_alive:
            own += b"Connection: close\r\n"
        elif self._head.is_http_10:
            own += b"Connection: keep-alive\r\n"
        lines = head.lines
        identity = self.request_id.encode()
        if not head.has_request_id:
            own += b"X-Request-ID: %b\r\n" % identity
        if b"origin" in self._head.named and not self._is_for_control():
            lines, cors = add_cors(lines, self._head.named[b"origin"])
            own += cors
        token = self._token
        if token is not None and self._timestamp >= token.warns_at:
            own += token.expiry_line
        upstream_ms = (self._headed_at - self._sent_at) * 1e3
        if self._gateway.debug_headers:
            own += b"X-Upstream-Response-Time: %.3f\r\n" % upstream_ms
        return (
            b"%b\nLLM-Proxy-Request-ID: %b\r\n%bServer-Timing: proxy;dur=%.3f, upstream;dur=%.3f"
            b"\r\nVia: 1.1 llm-proxy\r\n\r\n"
        ) % (lines, identity, own, (self._sent_at - self._started_at) * 1e3, upstream_ms)

    def _is_for_control(self) -> bool:
        return self._plan is not None and self._plan.route.upstream.is_control

    def response_continues(self, body: bytes, ends: bool) -> None:
        if body:
            if not self._first_byte_at:
                self._first_byte_at = perf_counter()
            self._response_size += len(body)
            self._last = body if len(body) > 3 else self._last[-3:] + body
            if self._capture is not None:
                self._capture.add(body)
            if self._frames_response:
                body = b"%x\r\n%b\r\n" % (len(body), body)
        if ends:
            self._upstream = None
            if self._frames_response:
                body += LAST_CHUNK
        self._client.write(body)
        if ends:
            self._complete()

    def pause_response(self) -> None:
        self._last = self._last[-4:]  # else all of it would be held twice
        if self._capture is not None:
            self._capture.hand_over()  # what a slow client makes wait is held once
        if self._upstream is not None:
            self._upstream.pause()

    def resume_response(self) -> None:
        if self._upstream is not None:
            self._upstream.resume()

    def _complete(self, whole: bytes = b"") -> None:
        """`whole` is the body for the record, where there was nothing to capture."""
        breaker = self._breaker
        if breaker is not None and breaker.failures and self._status < 500:
            breaker.answered(self, self._status)  # not before: streams may break
        self._end(whole=whole)
        self._client.finish(self.keeps_alive)

    def _switched(self, head: ResponseHead, rest: bytes) -> None:
        """The upstream took the WebSocket that was offered."""
        assert self._upstream is not None
        self._headed_at = perf_counter()
        self._has_begun = self._is_stream = self.keeps_alive = True
        self._replay = None
        self._forwarded = b""
        self._status = head.status
        if self._breaker is not None:
            self._breaker.answered(self, head.status)
        self._gateway.metrics.tunnels += 1
        self._gateway.metrics.tunnelled += 1
        Tunnel(self, self._client, self._upstream).open(self._response_lines(head), rest)

    def tunnel_ends(self, tunnel: Tunnel, *, error_code: str, truncated: bool) -> None:
        self._upstream = None
        self._gateway.metrics.tunnels -= 1
        self._body_size = tunnel.sent
        self._response_size = tunnel.received
        self._first_byte_at = tunnel.first_byte_at
        self._end(error_code=error_code, truncated=truncated)

    # Ends that nobody wished for.

    def response_fails(self, error: UpstreamError) -> None:
        connection, self._upstream = self._upstream, None
        if self._is_done:
            return
        if self._has_begun:
            self._blame(error)
            self._break(Refusal(error.code, str(error)))
            return
        if connection is not None and self._waits_for_replay(connection, error):
            return
        self._blame(error)
        self.refuse(Refusal(error.code, str(error)))

    def _blame(self, error: UpstreamError) -> None:
        if self._breaker is not None and error.code != "overloaded":
            self._breaker.failed(self, str(error))

    def _waits_for_replay(self, connection: UpstreamConnection, error: UpstreamError) -> bool:
        assert self._plan is not None
        sent, retries = self._replay, self._plan.route.upstream.pool.retries
        if sent is None:
            return False
        wait_s = wait_before_replay(
            self._head, sent, connection, error=error, tries=self._tries, retries=retries
        )
        if wait_s is None:
            return False
        self._retry = asyncio.get_running_loop().call_later(wait_s, self._send_again)
        return True

    def _send_again(self) -> None:
        assert self._plan is not None
        assert self._replay is not None
        self._retry = None
        self._forwarded = self._replay
        self._plan.route.upstream.pool.open(self)

    def refuse(self, refusal: Refusal) -> None:
        """Answers in place of the upstream; once its answer has begun, breaks that off."""
        if self._is_done:
            return
        self._let_go()
        if self._has_begun:
            self._break(refusal)
            return
        self._status = refusal.status_code
        if refusal.status_code < 500 and not self._is_for_control():
            self._count_refusal(refusal.code)
        if not self._body_ends and b"expect" in self._head.named and not self._is_invited:
            self.keeps_alive = False  # whether the body comes after all can't be known
        self.keeps_alive = self.keeps_alive and self._client.can_keep_alive()
        head, body = refusal_answer(
            refusal,
            self.request_id,
            method=self._head.method,
            origin=allowed_origin(self._head, self._plan.route.upstream if self._plan else None),
            keeps_alive=self.keeps_alive,
        )
        self._response_size = len(body)
        self._client.write(head + body)
        self._end(error_code=refusal.code)
        self._client.finish(self.keeps_alive)

    def _count_refusal(self, code: str) -> None:
        """For the audit log."""
        token_id = project_id = ""
        if self._token is not None:
            token_id, project_id = self._token.grant.token_id, self._token.grant.project_id
        self._gateway.refusals.add((code, token_id, project_id, self._address()))

    def _break(self, refusal: Refusal) -> None:
        """The end of a broken answer never looks like a clean one: SSE gets an error event, and
        no body gets its last chunk or all the bytes it announced."""
        is_between_events = self._last.endswith((b"\n\n", b"\r\n\r\n")) or not self._last
        if self._is_stream and not self._content_encoding and is_between_events:
            event = stream_error_event(refusal, self.request_id)
            if self._frames_response:
                self._client.write(frame_chunk(event))
            elif self._is_close_delimited:  # else it could pass for the rest of what was announced
                self._client.write(event)
        self._end(error_code=refusal.code, truncated=True)
        if self._is_close_delimited:
            self._client.reset()
        else:
            self._client.close()

    def revoke(self) -> None:
        """Its token was revoked, and what runs for it is not to go on."""
        self.keeps_alive = False
        self.refuse(Refusal("token_revoked", "This token was revoked while the request ran."))

    def client_gone(self) -> None:
        """The client hung up: whatever the upstream is doing for it ends now."""
        if self._is_done:
            return
        self._let_go()
        self._end(error_code="client_closed", truncated=self._has_begun)

    def _let_go(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abandon()
        elif self._retry is not None:
            self._retry.cancel()
        elif self._plan is None:
            return
        elif self._is_forwarding:
            self._plan.route.upstream.pool.cancel(self)
            if not self._tries and self._token is not None:  # the upstream saw nothing of it
                self._gateway.tokens.accounts.refund(self._token.account, self._lease_id)
                self._refund_limits()
        else:
            self._stop_waiting()

    def _answer_preflight(self, plan: Plan) -> None:
        self._status = 204
        self.keeps_alive = self.keeps_alive and self._client.can_keep_alive()
        upstream = plan.route.upstream
        answer = answer_preflight(
            self._head, upstream, self.request_id, keeps_alive=self.keeps_alive
        )
        self._client.write(answer)
        self._end()
        self._client.finish(self.keeps_alive)

    # 7. Record.

    def _end(self, *, error_code: str = "", truncated: bool = False, whole: bytes = b"") -> None:
        self._is_done = True
        self._gateway.held_bytes -= self._held
        if self._slots is not NO_SLOTS:
            self._gateway.limiter.give_back(self._slots)
        breaker = self._breaker
        if breaker is not None:
            self._gateway.running -= 1
            if breaker.is_tripped:
                breaker.abandoned(self)  # whatever it learned it was told before
        if not self._is_for_control():
            self._record(error_code, truncated, whole)

    def _record(self, error_code: str, truncated: bool, whole: bytes) -> None:
        gateway, started_at, status = self._gateway, self._started_at, self._status
        api = endpoint = project_id = token_id = ""
        if self._plan is not None:
            route = self._plan.route
            api, endpoint = route.upstream.name, route.endpoint_text
        total_s = perf_counter() - started_at
        first_byte_s = self._first_byte_at - started_at if self._first_byte_at else 0.0
        upstream_s = self._headed_at - self._sent_at if self._headed_at else 0.0
        received, sent = self._body_size, self._response_size
        gateway.metrics.ended(
            (api, status, error_code, total_s, first_byte_s, upstream_s, received, sent, truncated)
        )
        if gateway.recorder is None:
            return
        if self._token is not None:
            grant = self._token.grant
            project_id, token_id = grant.project_id, grant.token_id
        number = NO_PARTS
        if self._capture is not None:
            number, whole = self._capture.number, self._capture.rest()
        gateway.recorder.put(
            (
                RECORD,
                number,
                self._timestamp,
                self.request_id,
                project_id,
                token_id,
                api,
                endpoint,
                self._head.method.decode(),
                status,
                total_s * 1e3,
                upstream_s * 1e3,
                first_byte_s * 1e3,
                self._is_stream,
                received,
                sent,
                truncated,
                error_code,
                self._client.client_ip if gateway.trusted_proxies is None else self._address(),
                self._content_encoding,
                whole,
            )
        )
