"""What a route of the mock answers: a body or a stream of events, or a refusal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from llm_proxy.benchmark.mock_request import LARGEST_COLLECTED_BODY, Request

T = TypeVar("T")

JSON = b"application/json"
EVENT_STREAM = b"text/event-stream; charset=utf-8"

# One server-sent event, and how many tokens the stream has said with it.
Event = tuple[int, bytes]


@dataclass(slots=True, kw_only=True)
class Answer:
    status: int = 200
    content_type: bytes = JSON
    headers: bytes = b""  # further header lines, each ending in CRLF
    body: bytes = b""
    events: Iterator[Event] | None = None  # instead of a body


class Refused(Exception):
    """An error answer, before a dialect gives it its shape."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: bytes = b"",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = headers


def decode_body(decoder: msgspec.json.Decoder[T], request: Request) -> T:
    """The JSON body as `decoder` wants it. Raises Refused."""
    if request.body_is_too_large:
        raise Refused(413, f"The body is larger than {LARGEST_COLLECTED_BODY} bytes; send less.")
    try:
        return decoder.decode(request.body)
    except msgspec.ValidationError as exc:
        reason, _, where = str(exc).partition(" - at ")
        param = where.strip("`").removeprefix("$").removeprefix(".") or None
        raise Refused(400, f"Invalid body: {reason} at {param or 'its top'}.", param=param) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Refused(400, f"The body could not be parsed as JSON: {exc}.") from exc


def sse(data: object, *, event: str | None = None) -> bytes:
    """One server-sent event with JSON data."""
    encoded = msgspec.json.encode(data)
    if event is None:
        return b"data: %s\n\n" % encoded
    return b"event: %s\ndata: %s\n\n" % (event.encode(), encoded)
