"""Chunked framing (RFC 9112 section 7.1), strict: what is doubtful is refused, not guessed."""

from __future__ import annotations

from typing import Final

LAST_CHUNK: Final = b"0\r\n\r\n"
MAX_TRAILER_BYTES: Final = 8192
_MAX_SIZE_LINE: Final = 16  # hexadecimal digits, then CRLF: enough for 2^56 bytes
_HEX: Final = b"0123456789abcdefABCDEF"


class FramingError(ValueError):
    """The peer's framing is broken; nothing after it can be trusted."""


def frame_chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


class ChunkedDecoder:
    """Payload out of chunked bytes that may be cut anywhere.

    Chunk extensions are refused: nobody sends them but to smuggle. Trailers are dropped.
    """

    __slots__ = ("_buffer", "_in_trailer", "_left", "is_complete", "rest")

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0  # bytes to come of the chunk begun, its CRLF included
        self._in_trailer = False
        self.is_complete = False
        self.rest = b""  # what followed the end of the body

    def feed(self, data: bytes) -> bytes:
        """The payload in `data`. Raises FramingError."""
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        if self._in_trailer:
            self._skip_trailer(data, 0)
            return b""
        pieces = []
        position, length = 0, len(data)
        while position < length:
            left = self._left
            if not left:
                line_end = data.find(b"\r\n", position, position + _MAX_SIZE_LINE + 2)
                if line_end < 0:
                    self._keep_size_line(data[position:])
                    break
                size = _chunk_size(data[position:line_end])
                position = line_end + 2
                if not size:
                    self._skip_trailer(data, position)
                    break
                left = size + 2
            end = position + left
            if end <= length:
                if data[max(end - 2, position) : end] != b"\r\n"[-left:]:
                    raise FramingError("a chunk does not end where its size says")
                if left > 2:
                    pieces.append(data[position : end - 2])
                position = end
                self._left = 0
            else:
                position, left = self._take_part(data, position, left, pieces)
                self._left = left
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @staticmethod
    def _take_part(data: bytes, position: int, left: int, pieces: list[bytes]) -> tuple[int, int]:
        """Takes what has come of an unfinished chunk."""
        available = len(data) - position
        payload = max(min(available, left - 2), 0)
        if payload:
            pieces.append(data[position : position + payload])
        if payload < available and data[-1:] != b"\r":
            raise FramingError("a chunk does not end where its size says")
        return len(data), left - available

    def _keep_size_line(self, data: bytes) -> None:
        if len(data) > _MAX_SIZE_LINE + 1 or data.rstrip(b"\r").translate(None, _HEX):
            raise FramingError("a chunk size is not plain hexadecimal")
        self._buffer = data

    def _skip_trailer(self, data: bytes, position: int) -> None:
        """Ends at the empty line; `position` is the start of a trailer line."""
        self._in_trailer = True
        if data.startswith(b"\r\n", position):
            end = position + 2
        else:
            found = data.find(b"\r\n\r\n", position, position + MAX_TRAILER_BYTES)
            if found < 0:
                if len(data) - position >= MAX_TRAILER_BYTES:
                    raise FramingError("the trailer is too long")
                self._buffer = data[position:]
                return
            if b"\n" in data[position:found].replace(b"\r\n", b""):
                raise FramingError("a trailer line ends in a bare LF")
            end = found + 4
        self.rest = data[end:]
        self.is_complete = True


def _chunk_size(line: bytes) -> int:
    if not line or line.translate(None, _HEX):
        raise FramingError("a chunk size is not plain hexadecimal")
    return int(line, 16)
