"""Ids of requests: the client's own when it is sane, else a UUIDv7 (RFC 9562)."""

from __future__ import annotations

import os
from typing import Final

MAX_LENGTH: Final = 128
_SANE: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:+/=@"
_DRAWN_AT_ONCE: Final = 512  # a system call for each would cost more than all the rest
_RANDOM_HEX: Final = 20

_drawn: list[str] = []  # all of an id but its time


def _draw() -> None:
    text = os.urandom(_DRAWN_AT_ONCE * _RANDOM_HEX // 2).hex()
    for at in range(0, len(text), _RANDOM_HEX):
        random = text[at : at + _RANDOM_HEX]
        variant = "89ab"[int(random[0], 16) & 3]
        _drawn.append(f"-7{random[1:4]}-{variant}{random[5:8]}-{random[8:]}")


def request_id(wanted: bytes | None, now: float) -> str:
    """`now` is in Unix seconds."""
    if wanted and len(wanted) <= MAX_LENGTH and not wanted.translate(None, _SANE):
        return wanted.decode()
    if not _drawn:
        _draw()
    time = f"{int(now * 1000):012x}"
    return f"{time[:8]}-{time[8:]}{_drawn.pop()}"
