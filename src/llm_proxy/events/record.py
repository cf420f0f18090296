"""One exchange as the gateway saw it, and the parts it travels to the writer process in.

A connection from a worker carries frames: 4 bytes of length (little-endian), then the msgpack
array of `Part` and `ExchangeRecord` in the order they happened. An exchange is any number of parts
and then its record.
"""

from __future__ import annotations

import msgspec


class Part(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """A piece of a long response body, as it was received (still content-encoded)."""

    exchange: int  # unique within the connection
    body: bytes


class ExchangeRecord(msgspec.Struct, frozen=True, array_like=True, tag=1):
    exchange: int
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
    stream: bool
    request_bytes: int
    response_bytes: int
    truncated: bool
    error_code: str
    client_ip: str
    content_encoding: str  # of `body` and of the parts before it
    body: bytes  # what is left of a JSON or SSE response after the parts; empty for other types
    dropped: int = 0  # records lost before this one because the writer was behind
