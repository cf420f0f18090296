"""What the command and its generator processes say to each other, over pipes."""

from __future__ import annotations

import struct
from typing import Final

_HEADER: Final = struct.Struct("!cI")
HEADER_BYTES: Final = _HEADER.size
LARGEST: Final = 512 * 1024 * 1024

# To a generator:
PLAN: Final = b"P"  # an encoded plan; answered with READY or FAILED
GO: Final = b"G"  # begin at this monotonic_ns, in decimal
STOP: Final = b"S"  # end the run early
# From it:
READY: Final = b"R"
FRAME: Final = b"F"
FIGURES: Final = b"E"  # the run has ended: its RigFigures
FAILED: Final = b"X"  # a sentence


def pack(kind: bytes, payload: bytes = b"") -> bytes:
    return _HEADER.pack(kind, len(payload)) + payload


def unpack_header(header: bytes) -> tuple[bytes, int]:
    """The kind, and how many bytes follow."""
    kind, length = _HEADER.unpack(header)
    if length > LARGEST:
        raise ValueError(f"a message of {length} bytes")
    return kind, length
