"""A request as the mock received it, and what is remembered of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qsl, unquote

RawHeaders = list[tuple[bytes, bytes]]

LARGEST_COLLECTED_BODY = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedRequest:
    method: str
    target: bytes
    headers: RawHeaders  # in order, in their own case
    body_size: int
    body_sha256: str


class BodySink(Protocol):
    """Takes a body piece by piece, so that it needn't fit in memory."""

    def feed(self, data: bytes) -> None: ...


class _Collector:
    """Keeps a body whole, up to a limit."""

    __slots__ = ("chunks", "overflowed", "size")

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.size = 0
        self.overflowed = False

    def feed(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > LARGEST_COLLECTED_BODY:
            self.overflowed = True
            self.chunks.clear()
        else:
            self.chunks.append(data)


class Request:
    __slots__ = (
        "_collector",
        "_hash",
        "_identity",
        "body_size",
        "fields",
        "headers",
        "keep_alive",
        "method",
        "path",
        "query",
        "sink",
        "target",
        "version",
    )

    def __init__(
        self, method: str, target: bytes, headers: RawHeaders, *, version: str = "1.1"
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.version = version
        self.keep_alive = True
        path, _, query = target.partition(b"?")
        self.path = path.decode("latin-1")
        self.query = query.decode("latin-1")
        self.fields = {name.lower(): value for name, value in headers}
        self.body_size = 0
        self._hash = hashlib.sha256()
        self._identity: str | None = None
        self._collector: _Collector | None = None
        self.sink: BodySink | None = None

    def collect(self) -> None:
        """Makes `body` available, to be called before the first `feed`."""
        self.sink = self._collector = _Collector()

    def feed(self, data: bytes) -> None:
        self.body_size += len(data)
        self._hash.update(data)
        if self.sink is not None:
            self.sink.feed(data)

    @property
    def body(self) -> bytes:
        chunks = self._collector.chunks if self._collector else []
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    @property
    def body_is_too_large(self) -> bool:
        return self._collector is not None and self._collector.overflowed

    def identity(self) -> str:
        """24 hex digits that are the same for the same method, target and body."""
        if self._identity is None:
            whole = self._hash.copy()
            whole.update(b"%s %s" % (self.method.encode(), self.target))
            self._identity = whole.hexdigest()[:24]
        return self._identity

    def header(self, name: bytes) -> str | None:
        value = self.fields.get(name)
        return None if value is None else value.decode("latin-1").strip()

    def parameters(self) -> dict[str, str]:
        return dict(parse_qsl(self.query, encoding="latin-1"))

    def segment(self, index: int) -> str:
        """A part of the path, percent-decoded: segment 0 of `/v1/models` is `v1`."""
        return unquote(self.path.split("/")[index + 1])

    def received(self) -> ReceivedRequest:
        return ReceivedRequest(
            method=self.method,
            target=self.target,
            headers=self.headers,
            body_size=self.body_size,
            body_sha256=self._hash.hexdigest(),
        )
