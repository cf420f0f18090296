"""One exchange as the gateway saw it, and the parts it travels to the writer process in.

A connection from a worker carries frames: 4 bytes of length (little-endian), then the msgpack
array of `Part` and `ExchangeRecord` in the order they happened. An exchange is any number of parts
and then its record. Workers send plain tuples of the same layout: they cost half as much to make.
"""

from __future__ import annotations

import struct
from typing import Final, Literal

import msgspec

FRAME_HEAD: Final = struct.Struct("<I")
MAX_FRAME: Final = 32 << 20  # bytes; a worker queues half as much
NO_PARTS: Final = 0  # the `exchange` of a record whose whole body is in it
PART: Final = 0
RECORD: Final = 1


class Part(msgspec.Struct, frozen=True, array_like=True, tag=PART, gc=False):
    """A piece of a long response body, as it was received (still content-encoded)."""

    exchange: int  # unique within the connection, never 0
    content_encoding: str
    stream: bool
    body: bytes


class ExchangeRecord(msgspec.Struct, frozen=True, array_like=True, tag=RECORD, gc=False):
    exchange: int  # of the parts before it; 0: there are none
    timestamp: float  # Unix seconds, when the request's head was complete
    request_id: str
    project_id: str
    token_id: str
    api: str
    endpoint: str  # the raw path after prefix removal, without the query
    method: str
    status_code: int  # 0: the client left before there was one
    duration_ms: float
    upstream_ms: float  # until the upstream's head; 0 without an upstream
    ttft_ms: float  # until the first byte of the response's body; 0 without one
    stream: bool  # the response is text/event-stream, or a tunnel
    request_bytes: int
    response_bytes: int
    truncated: bool
    error_code: str
    client_ip: str
    content_encoding: str  # of `body` and of the parts before it
    body: bytes  # what is left of a JSON or SSE response after the parts; empty for other types
    dropped: int = 0  # records lost before this one because the writer was behind


# The fields above as a worker sends them: the tag, then each in its order; `dropped` may follow.
RecordFields = tuple[
    Literal[1],  # RECORD
    int,  # exchange
    float,  # timestamp
    str,  # request_id
    str,  # project_id
    str,  # token_id
    str,  # api
    str,  # endpoint
    str,  # method
    int,  # status_code
    float,  # duration_ms
    float,  # upstream_ms
    float,  # ttft_ms
    bool,  # stream
    int,  # request_bytes
    int,  # response_bytes
    bool,  # truncated
    str,  # error_code
    str,  # client_ip
    str,  # content_encoding
    bytes,  # body
]
PartFields = tuple[Literal[0], int, str, bool, bytes]
