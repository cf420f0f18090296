"""What one exchange looks like in the event log: a line of JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from llm_proxy.dispatcher.metadata import Metadata
from llm_proxy.events.record import ExchangeRecord


class Line(msgspec.Struct, gc=False):
    """None: unknown, or there was none."""

    timestamp: datetime
    request_id: str | None
    project_id: str | None
    token_id: str | None
    api: str | None
    endpoint: str | None
    method: str | None
    status_code: int | None
    duration_ms: float
    upstream_ms: float | None
    ttft_ms: float | None
    stream: bool
    request_bytes: int
    response_bytes: int
    truncated: bool
    error_code: str | None
    client_ip: str | None
    metadata: Metadata
    dropped: int | msgspec.UnsetType  # there only when records were lost before this one


def line_of(record: ExchangeRecord, metadata: Metadata, *, dropped: int) -> Line:
    """Raises ValueError, OverflowError or OSError for a time that no clock shows."""
    return Line(
        datetime.fromtimestamp(record.timestamp, UTC),
        record.request_id or None,
        record.project_id or None,
        record.token_id or None,
        record.api or None,
        record.endpoint or None,
        record.method or None,
        record.status_code or None,
        _rounded(record.duration_ms),
        _rounded(record.upstream_ms) or None,
        _rounded(record.ttft_ms) or None,
        record.stream,
        record.request_bytes,
        record.response_bytes,
        record.truncated,
        record.error_code or None,
        record.client_ip or None,
        metadata,
        dropped or msgspec.UNSET,
    )


def _rounded(milliseconds: float) -> float:
    """To microseconds, in a third of the time that `round` takes."""
    return int(milliseconds * 1000 + 0.5) / 1000


_encode_lines = msgspec.json.Encoder().encode_lines


def json_lines(lines: Sequence[Line]) -> bytes:
    """Each line ended by LF."""
    return _encode_lines(lines)
