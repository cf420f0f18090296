"""The data of server-sent events, out of pieces that are cut anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

LONGEST_EVENT: Final = 4 << 20  # bytes
_BOM: Final = b"\xef\xbb\xbf"


class EventTooLong(Exception):
    pass


class EventStream:
    """Names, ids and comments are passed over: the data of both APIs says what it is."""

    def __init__(self) -> None:
        self._line = bytearray()  # what there is of the current one
        self._data: list[bytes] = []
        self._size = 0
        self._is_start = True
        self._skips_lf = False  # the last byte was a CR, which a LF may follow

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The events that `piece` completes. Raises EventTooLong."""
        if self._skips_lf and piece:
            piece = piece.removeprefix(b"\n")
            self._skips_lf = False
        if b"\r" in piece:
            self._skips_lf = piece.endswith(b"\r")
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *ends, rest = piece.split(b"\n")
        for end in ends:
            line = bytes(self._line) + end
            self._line.clear()
            yield from self._take(line)
        self._line += rest
        if len(self._line) + self._size > LONGEST_EVENT:
            raise EventTooLong

    def finish(self) -> Iterator[bytes]:
        """What is left when the stream ends without its last blank line."""
        yield from self.feed(b"\n\n")

    def _take(self, line: bytes) -> Iterator[bytes]:
        if self._is_start:
            line = line.removeprefix(_BOM)
            self._is_start = False
        if line:
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" "))
                self._size += len(value)
        elif self._data:
            yield b"\n".join(self._data)
            self._data.clear()
            self._size = 0
