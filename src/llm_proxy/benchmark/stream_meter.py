"""What a stream of server-sent events says, and when: fed with its bytes as they arrive."""

from __future__ import annotations

import re
from array import array
from typing import Final

import msgspec

from llm_proxy.benchmark.samples import NONE, TICKS_PER_MS

LONGEST_LINE: Final = 64 * 1024
MOST_GAPS: Final = 100_000
_STALL_FACTOR: Final = 10
_SHORTEST_STALL: Final = TICKS_PER_MS

_MOST_SPACE: Final = 16
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
        "_last_token",
        "_rest",
        "_usage",
        "events",
        "first_token",
        "gaps",
        "has_error",
        "second_token",
    )

    def __init__(self) -> None:
        self.first_token = NONE
        self.second_token = NONE
        self.gaps = array("q")  # between tokens; 0 for those that arrived in one piece
        self.has_error = False
        self._format: _Format | None = None
        self.events = 0  # that said something
        self._last_token = NONE
        self._usage = NONE
        self._has_ended = False
        self._rest = b""  # of a line whose end hasn't arrived

    def feed(self, data: bytes, now: int) -> None:
        """Bytes of the body without its transfer coding, cut anywhere."""
        if self._rest:
            data = self._rest + data
        elif self._usual and self._is_usual(data):
            self._on_token(data, now)
            return
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            if data.startswith(b"data:", start):
                self._on_data(_shortened(data[start:end]), now)
                if not self._usual and self._format is not None:
                    self._usual = _usual_head(data[:end], self._format)
            elif data.startswith(b"event:", start) and data[start + 6 : end].strip() == b"error":
                self.has_error = True
            start = end + 1
        self._rest = _shortened(data[start:]) if start < len(data) else b""

    @property
    def tokens(self) -> int:
        """As the stream's usage tells, else the number of events that said something."""
        return self.events if self._usage == NONE else self._usage

    @property
    def is_complete(self) -> bool:
        """Whether its last event was seen; an unknown format has none."""
        if self._has_ended or self._format is _UNKNOWN:
            return True
        return _is_done(self._rest)  # some servers leave out the line's end

    def mean_gap(self) -> int:
        if self.events < 2:
            return NONE
        return (self._last_token - self.first_token) // (self.events - 1)

    def stalls(self) -> int:
        """Gaps far longer than this stream's usual ones."""
        long = [gap for gap in self.gaps if gap > _SHORTEST_STALL]
        if not long:
            return 0
        usual = sorted(gap for gap in self.gaps if gap)
        middle = len(usual) // 2
        twice_median = usual[middle] + usual[~middle]
        return sum(2 * gap > _STALL_FACTOR * twice_median for gap in long)

    def _on_line(self, line: bytes, now: int) -> None:
        if line.startswith(b"data:"):
            self._on_data(line, now)
        elif line.startswith(b"event:") and line[6:].strip() == b"error":
            self.has_error = True

    def _on_data(self, line: bytes, now: int) -> None:
        kind = self._format
        if kind is None:
            kind = self._recognise(line)
        if kind.token in line and _says_something(line, kind.texts):
            self._on_token(now)
        else:
            self._on_other(line, kind, now)
        if b'_tokens"' in line and (told := _USAGE.findall(line)):
            self._usage = int(told[-1])

    def _recognise(self, line: bytes) -> _Format:
        """The first event that isn't an error tells the format."""
        for kind in _FORMATS:
            if kind.mark in line:
                self._format = kind
                return kind
        if _is_event(line) and not _ERROR_OBJECT.search(line):
            self._format = _UNKNOWN
        return _UNKNOWN

    def _on_token(self, now: int) -> None:
        if self.events == 0:
            self.first_token = now
        else:
            if self.events == 1:
                self.second_token = now
            if self.events <= MOST_GAPS:
                self.gaps.append(now - self._last_token)
        self.events += 1
        self._last_token = now
        self._usage = NONE  # what was told before is out of date

    def _on_other(self, line: bytes, kind: _Format, now: int) -> None:
        if kind.error.search(line):
            self.has_error = True
        elif kind is _UNKNOWN and _is_event(line):
            self._on_token(now)
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


def _says_something(line: bytes, keys: tuple[bytes, ...]) -> bool:
    """Whether a string that isn't empty stands behind one of the keys."""
    for key in keys:
        at = line.find(key)
        while at >= 0:
            at += len(key)
            value = line[at : at + 2]
            if value[:1].isspace():
                value = line[at : at + _MOST_SPACE].lstrip()
            if value.startswith(b'"') and not value.startswith(b'""'):
                return True
            at = line.find(key, at)
    return False
