"""Server-sent events, found in a stream of bytes that is cut anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

MAX_EVENT: Final = 4 << 20  # bytes; a longer event is passed over
_BOM: Final = b"\xef\xbb\xbf"


class EventBlocks:
    """Joins pieces to blocks of whole events, each line ended by LF and each event by a blank one.

    Events are not taken apart: a caller that wants few of them searches the block, and asks
    `event_at` and `event_data` for those.
    """

    def __init__(self) -> None:
        self._pending = bytearray()
        self._is_start = True
        self._is_skipping = False  # inside an event that is too long
        self._has_cr = False  # the last byte was a CR, which a LF may follow

    @property
    def held(self) -> int:
        return len(self._pending)

    def feed(self, piece: bytes) -> bytes:
        """The events that `piece` completes; empty when it completes none."""
        if self._has_cr or b"\r" in piece:
            piece = self._with_lf(piece)
        seen = len(self._pending)
        self._pending += piece
        if self._is_start:
            self._skip_bom()
        end = self._pending.rfind(b"\n\n", max(seen - 1, 0))
        if end < 0:
            if len(self._pending) > MAX_EVENT:
                self._is_skipping = True
                del self._pending[:-1]  # its last byte may be half of the blank line
            return b""
        block = bytes(self._pending[: end + 2])
        del self._pending[: end + 2]
        if self._is_skipping:
            self._is_skipping = False
            block = block[block.index(b"\n\n") + 2 :]
        return block

    def finish(self) -> bytes:
        """What is left when the stream ends without its last blank line."""
        return self.feed(b"\n\n")

    def _with_lf(self, piece: bytes) -> bytes:
        if self._has_cr:
            piece = b"\r" + piece
        self._has_cr = piece.endswith(b"\r")
        if self._has_cr:
            piece = piece[:-1]
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _skip_bom(self) -> None:
        if self._pending.startswith(_BOM):
            del self._pending[: len(_BOM)]
            self._is_start = False
        elif not _BOM.startswith(self._pending):
            self._is_start = False


def events_with(block: bytes, needle: bytes) -> Iterator[bytes]:
    """The events of a block that contain `needle`, in order."""
    at = block.find(needle)
    while at >= 0:
        start, end = _bounds(block, at)
        yield block[start:end]
        at = block.find(needle, end)


def last_events_with(block: bytes, needle: bytes, *, unless: tuple[bytes, ...]) -> Iterator[bytes]:
    """The same, the last event first, passing over places where one of `unless` follows."""
    at = block.rfind(needle)
    while at >= 0:
        before = at
        if not block.startswith(unless, at + len(needle)):
            before, end = _bounds(block, at)
            yield block[before:end]
        at = block.rfind(needle, 0, before)


def _bounds(block: bytes, at: int) -> tuple[int, int]:
    start = block.rfind(b"\n\n", 0, at)
    return (0 if start < 0 else start + 2), block.index(b"\n\n", at)


def event_data(event: bytes) -> bytes:
    """The data lines of an event, joined as the standard says."""
    lines = [line[5:] for line in event.split(b"\n") if line.startswith(b"data:")]
    return lines[0] if len(lines) == 1 else b"\n".join(lines)
