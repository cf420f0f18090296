"""Ids of requests: the client's own when it is sane, else a UUIDv7 (RFC 9562)."""

from __future__ import annotations

import os
from typing import Final

MAX_LENGTH: Final = 128
_SANE: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:+/=@"
_VARIANT: Final = "89ab"


def request_id(wanted: bytes | None, now: float) -> str:
    """`now` is in Unix seconds."""
    if wanted and len(wanted) <= MAX_LENGTH and not wanted.translate(None, _SANE):
        return wanted.decode()
    time = f"{int(now * 1000):012x}"
    random = os.urandom(10).hex()
    variant = _VARIANT[int(random[0], 16) & 3]
    return f"{time[:8]}-{time[8:]}-7{random[1:4]}-{variant}{random[5:8]}-{random[8:20]}"
