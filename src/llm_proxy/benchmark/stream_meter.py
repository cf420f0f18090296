"""What a stream of server-sent events says, and when: fed with its bytes as they arrive."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from typing import Final

import msgspec

from llm_proxy.benchmark.samples import NONE, TICKS_PER_MS

LONGEST_LINE: Final = 64 * 1024
MOST_GAPS: Final = 100_000
_STALL_FACTOR: Final = 10
_SHORTEST_STALL: Final = 10 * TICKS_PER_MS  # shorter ones nobody sees, however fast the stream

_QUOTE: Final = ord('"')
_SHORTEST_LINE: Final = 5
_LONGEST_NAME: Final = 200  # of an event, looked at
_ERROR: Final = re.compile(
    rb'"type"\s*:\s*"(?:error|response\.failed)"|data:\s*\{\s*"error"\s*:\s*(?:\{|"[^"])'
)
_ERROR_OBJECT: Final = re.compile(_ERROR.pattern + rb'|"error"\s*:\s*\{')
_USAGE: Final = re.compile(rb'"(?:completion|output)_tokens"\s*:\s*(\d{1,12})')


class _Format(msgspec.Struct, frozen=True, kw_only=True):
    """How to read one API's streams without decoding JSON.

    A quote within a JSON string has a backslash before it, so `"key":` is always a key.
    """

    mark: bytes  # found in its first event
    token: bytes  # found in every event that says something
    texts: tuple[bytes, ...]  # the keys it may say it with
    ends: tuple[bytes, ...]  # one of them is found in its last event
    error: re.Pattern[bytes] = _ERROR_OBJECT


_FORMATS: Final = (
    _Format(
        mark=b'"response.',
        token=b'.delta"',
        texts=(b'"delta":',),
        ends=(b'"response.completed"', b'"response.failed"', b'"response.incomplete"'),
        error=_ERROR,  # its items tell of errors of tools, which aren't the stream's
    ),
    _Format(
        mark=b'"message_start"',
        token=b'"content_block_delta"',
        texts=(b'"text":', b'"partial_json":', b'"thinking":'),
        ends=(b'"message_stop"',),
    ),
    _Format(
        mark=b'"choices"',
        token=b'"choices"',
        texts=(
            *(b'"content":', b'"arguments":', b'"reasoning_content":', b'"reasoning":'),
            *(b'"text":', b'"refusal":'),
        ),
        ends=(),  # but [DONE], which ends any
    ),
)
_UNKNOWN: Final = _Format(mark=b"", token=b"", texts=(), ends=())


class StreamMeter:
    """Times are ticks of 100 ns since the request was sent; -1 is "none"."""

    __slots__ = (
        "_format",
        "_has_ended",
        "_head",
        "_key",
        "_rest",
        "_told",
        "events",
        "first_token",
        "gaps",
        "has_error",
        "last_token",
        "second_token",
    )

    def __init__(self) -> None:
        self.events = 0  # that said something
        self.first_token = NONE
        self.second_token = NONE
        self.last_token = NONE
        self.gaps = array("q")  # between tokens; 0 for those that arrived in one piece
        self.has_error = False
        self._format: _Format | None = None
        self._head = b""  # how this stream's tokens begin, and the key they stand behind
        self._key = b""
        self._told = b""  # the line of the last token, or a later one that tells the usage
        self._has_ended = False
        self._rest = b""  # of a line whose end hasn't arrived

    def feed(self, data: bytes, now: int) -> None:
        """Bytes of the body without its transfer coding, cut anywhere."""
        if self._rest:
            data = self._rest + data
        start, size = 0, len(data)
        while start < size:
            # 1. An event like the last one that said something: nearly all of them.
            if self._head and data.startswith(self._head, start):
                at = start + len(self._head)
                end = data.find(b"\n", at)
                at = data.find(self._key, at, end) + len(self._key)
                if end >= at >= len(self._key) and data[at] != _QUOTE:
                    self._on_token(data[start:end], now)
                    start = end + 2 if data.startswith(b"\n", end + 1) else end + 1
                    continue
            # 2. Any other line.
            end = data.find(b"\n", start)
            if end < 0:
                break
            if end - start > _SHORTEST_LINE:
                self._on_line(data, start, end, now)
            start = end + 1
        self._rest = _shortened(data[start:]) if start < size else b""

    @property
    def tokens(self) -> int:
        """As the stream's usage tells, else the number of events that said something."""
        told = _USAGE.findall(_shortened(self._told))
        return int(told[-1]) if told else self.events

    @property
    def is_complete(self) -> bool:
        """Whether its last event was seen; an unknown format has none."""
        if self._has_ended or self._format is _UNKNOWN:
            return True
        return _is_done(self._rest)  # some servers leave out the line's end

    def mean_gap(self) -> int:
        if self.events < 2:
            return NONE
        return (self.last_token - self.first_token) // (self.events - 1)

    def stalls(self) -> int:
        """Gaps far longer than this stream's usual ones: those besides the longest."""
        if len(self.gaps) < 2 or max(self.gaps) <= _SHORTEST_STALL:
            return 0
        waits = sorted(gap for gap in self.gaps if gap)
        others = waits[:-1]
        middle = len(others) // 2
        usual = (others[middle] + others[~middle]) // 2 if others else 0
        return len(waits) - bisect_right(waits, max(_STALL_FACTOR * usual, _SHORTEST_STALL))

    def _on_token(self, line: bytes, now: int) -> None:
        if self.events > 1:
            if self.events <= MOST_GAPS:
                self.gaps.append(now - self.last_token)
        elif self.events == 1:
            self.second_token = now
            self.gaps.append(now - self.last_token)
        else:
            self.first_token = now
        self.events += 1
        self.last_token = now
        self._told = line

    def _on_line(self, data: bytes, start: int, end: int, now: int) -> None:
        line = _shortened(data[start:end])
        if line.startswith(b"data:"):
            kind = self._format or self._recognise(line)
            if kind.token and kind.token in line and (key := _said_with(line, kind.texts)):
                self._on_token(line, now)
                self._learn(data[max(0, start - _LONGEST_NAME) : start], line, key)
            else:
                self._on_other(line, kind, now)
        elif line.startswith(b"event:") and line[6:].strip() == b"error":
            self.has_error = True

    def _recognise(self, line: bytes) -> _Format:
        """The first event that isn't an error tells the format."""
        for kind in _FORMATS:
            if kind.mark in line:
                self._format = kind
                return kind
        if _is_event(line) and not _ERROR_OBJECT.search(line):
            self._format = _UNKNOWN
        return _UNKNOWN

    def _learn(self, before: bytes, line: bytes, key: bytes) -> None:
        """The next token is likely to look the same up to what tells its kind."""
        assert self._format is not None
        if before[-1:] == b"\n":
            before = before[before.rfind(b"\n", 0, -1) + 1 :]
        if not before.startswith(b"event:"):
            before = b""
        mark = line.find(self._format.token) + len(self._format.token)
        if key in line[mark:]:
            self._head, self._key = before + line[:mark], key

    def _on_other(self, line: bytes, kind: _Format, now: int) -> None:
        if (b"error" in line or b".failed" in line) and kind.error.search(line):
            self.has_error = True
        elif kind is _UNKNOWN and _is_event(line):
            self._on_token(line, now)
        elif b'_tokens"' in line:
            self._told = line
        if _is_done(line) or any(end in line for end in kind.ends):
            self._has_ended = True


def _shortened(line: bytes) -> bytes:
    """Of a line that is too long to keep, its two ends: the kind and the usage are there."""
    if len(line) <= LONGEST_LINE:
        return line
    return line[: LONGEST_LINE // 2] + line[-LONGEST_LINE // 2 :]


def _is_done(line: bytes) -> bool:
    return line.startswith(b"data:") and line[5:].strip() == b"[DONE]"


def _is_event(line: bytes) -> bool:
    return line[5:].strip() not in (b"", b"[DONE]")


def _said_with(line: bytes, keys: tuple[bytes, ...]) -> bytes:
    """The key, up to its value's quote, behind which a string stands that isn't empty."""
    for key in keys:
        at = line.find(key)
        while at >= 0:
            value = at + len(key)
            while line[value : value + 1].isspace():
                value += 1
            if line[value : value + 1] == b'"' and line[value + 1 : value + 2] != b'"':
                return line[at : value + 1]
            at = line.find(key, value)
    return b""
