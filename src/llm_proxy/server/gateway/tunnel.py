"""What follows a `101 Switching Protocols`: bytes both ways, until one side closes.

HTTP has no say in it any more. Nothing is framed, looked into, limited in size or kept for the
record; each side's pace is the other's, and an end can be answered by nobody.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from llm_proxy.http1.connection import UpstreamConnection, UpstreamError

if TYPE_CHECKING:
    from llm_proxy.server.gateway.client_connection import ClientConnection
    from llm_proxy.server.gateway.exchange import Exchange


class Tunnel:
    """Takes the place of its exchange on both connections, which hears of the end."""

    __slots__ = (
        "_client",
        "_exchange",
        "_is_done",
        "_upstream",
        "first_byte_at",
        "received",
        "sent",
    )

    def __init__(
        self, exchange: Exchange, client: ClientConnection, upstream: UpstreamConnection
    ) -> None:
        self._exchange = exchange
        self._client = client
        self._upstream = upstream
        self._is_done = False
        self.sent = 0  # bytes, from the client to the upstream
        self.received = 0  # and back
        self.first_byte_at = 0.0

    def open(self, answer: bytes, rest: bytes) -> None:
        """`rest` came right behind the upstream's `answer`."""
        self._upstream.become_tunnel(self)
        early = self._client.become_tunnel(self)
        self._client.write(answer)
        if rest:
            self.response_continues(rest, False)
        if early:
            self.request_continues(early)

    # What the client's connection says.

    def request_continues(self, data: bytes) -> None:
        if not self._is_done:
            self.sent += len(data)
            self._upstream.send_more(data, False)

    def client_gone(self) -> None:
        if not self._is_done:
            self._upstream.finish()
            self._end()

    def cut(self, error_code: str) -> None:
        """The server stops, or the token was revoked."""
        if not self._is_done:
            self._upstream.finish()
            self._end(error_code=error_code, truncated=True)
            self._client.end_tunnel()

    # What the upstream's connection says.

    def response_continues(self, body: bytes, ends: bool) -> None:
        if body:
            if not self.received:
                self.first_byte_at = perf_counter()
            self.received += len(body)
            self._client.write(body)
        if ends:
            self._end()
            self._client.end_tunnel()

    def response_fails(self, error: UpstreamError) -> None:
        if error.code == "upstream_timeout":
            self._end(error_code="idle_timeout")  # of both sides, so it is nobody's fault
        else:
            self._end(error_code=error.code, truncated=True)
        self._client.end_tunnel()

    def pause_request(self) -> None:
        self._client.pause_reading()

    def resume_request(self) -> None:
        self._client.resume_reading()

    def _end(self, *, error_code: str = "", truncated: bool = False) -> None:
        self._is_done = True
        self._exchange.tunnel_ends(self, error_code=error_code, truncated=truncated)
