"""Answers of a scripted peer: every framing that a response may have, and what is wrong with it."""

from __future__ import annotations

import dataclasses
from typing import Final

OK: Final = b"HTTP/1.1 200 OK\r\nX-Scripted: yes\r\n"
EVENTS: Final = b"Content-Type: text/event-stream\r\n"


@dataclasses.dataclass
class Answer:
    raw: bytes
    body: bytes
    status: int = 200
    is_valid: bool = True
    ends_by_close: bool = False
    keeps_connection: bool = True
    sent: int = 0  # of `raw`
    surplus: int = 0  # bytes of `raw` that are too many: they come with the end or not at all

    @property
    def is_sent(self) -> bool:
        return self.sent == len(self.raw)

    def take(self, share: float) -> bytes:
        """Some of what is left, marked as sent."""
        left = self.raw[self.sent :]
        size = max(int(len(left) * share), 1)
        part = left if size >= len(left) - self.surplus else left[:size]
        self.sent += len(part)
        return part

    @property
    def whole(self) -> bytes:
        """The body that somebody has who was told of its end."""
        if not self.ends_by_close:
            return self.body
        return self.raw[: self.sent].partition(b"\r\n\r\n")[2]  # it ends whenever that is


FRAMINGS: Final = (
    *("length", "interim", "chunked", "events", "close", "until close", "events until close"),
    *("1.0", "no content", "not modified", "surplus", "unavailable"),
)
BROKEN: Final = {
    "garbage": b"SSH-2.0-OpenSSH_9.9\r\n",
    "two lengths": OK + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "both": OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    "bare LF": OK + b"A: b\nContent-Length: 0\r\n\r\n",
    "switch": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "flood": b"HTTP/1.1 100 Continue\r\n\r\n" * 40,
    "endless head": OK + b"A: " + b"b" * 70_000,
}


def make_answer(kind: str, body: bytes, *, method: bytes) -> Answer:
    """`kind` is one of FRAMINGS or BROKEN."""
    if kind in BROKEN:
        return Answer(BROKEN[kind], b"", is_valid=False, keeps_connection=False)
    is_head = method == b"HEAD"
    shown = b"" if is_head else body
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    if kind in ("chunked", "events"):
        head = OK + (EVENTS if kind == "events" else b"") + b"Transfer-Encoding: chunked\r\n\r\n"
        return Answer(head if is_head else head + _chunks(body), shown)
    if kind in ("until close", "events until close"):
        head = OK + (EVENTS if kind.startswith("events") else b"") + b"\r\n"
        return Answer(head + shown, shown, ends_by_close=not is_head)
    if kind == "no content":
        return Answer(b"HTTP/1.1 204 No Content\r\nX-Scripted: yes\r\n\r\n", b"", status=204)
    if kind == "not modified":
        head = b"HTTP/1.1 304 Not Modified\r\nX-Scripted: yes\r\n"
        return Answer(head + length, b"", status=304)
    if kind == "interim":
        interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        return Answer(interim * 2 + OK + length + shown, shown)
    if kind == "close":
        return Answer(OK + b"Connection: close\r\n" + length + shown, shown, keeps_connection=False)
    if kind == "1.0":
        head = OK.replace(b"HTTP/1.1", b"HTTP/1.0")
        return Answer(head + length + shown, shown, keeps_connection=False)
    if kind == "unavailable":
        head = b"HTTP/1.1 503 Service Unavailable\r\nX-Scripted: yes\r\nRetry-After: 1\r\n"
        return Answer(head + length + shown, shown, status=503)
    assert kind in ("length", "surplus")
    answer = Answer(OK + length + shown, shown)
    if kind == "surplus":  # belongs to no request: the connection can't be trusted
        surplus = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        answer.raw, answer.surplus = answer.raw + surplus, len(surplus)
        answer.keeps_connection = False
    return answer


def _chunks(body: bytes) -> bytes:
    size = max(7, len(body) // 40)
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
