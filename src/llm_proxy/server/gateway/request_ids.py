"""Ids of requests: the client's own when it is sane, else a UUIDv7 (RFC 9562)."""

from __future__ import annotations

import os
from typing import Final

MAX_LENGTH: Final = 128
_SANE: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:+/=@"
_COUNTS: Final = [f"{count:03x}" for count in reversed(range(4096))]  # taken from the end

_drawn: list[str] = []  # what follows the time in the ids to come
_time = (0, "")  # the last one in ms, and as an id begins with it


def _draw() -> None:
    """58 random bits and a counter of 12 (RFC 9562 section 6.2), for as many ids as it counts."""
    random = os.urandom(8).hex()
    variant = "89ab"[int(random[15], 16) & 3]
    start = f"-7{random[:3]}-{variant}{random[3:6]}-{random[6:15]}"
    _drawn.extend(start + count for count in _COUNTS)


def request_id(wanted: bytes | None, now: float) -> str:
    """`now` is in Unix seconds."""
    global _time
    if wanted and len(wanted) <= MAX_LENGTH and not wanted.translate(None, _SANE):
        return wanted.decode()
    if not _drawn:
        _draw()
    milliseconds, text = _time
    if int(now * 1000) != milliseconds:
        milliseconds = int(now * 1000)
        text = f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}"
        _time = milliseconds, text
    return text + _drawn.pop()
