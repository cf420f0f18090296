"""Header lines cut out of a head that llhttp has validated, without touching the others.

A head is handled as one byte string. `pattern.split(head)` alternates between text to keep (even
indexes) and the lines of the named headers (odd indexes), each cut as `\\nName: value\\r`; joining
the list gives back the head byte for byte. Only sound on validated heads: CRLF line ends, no
folded lines, no blank before a colon.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby

# RFC 9110 section 7.6.1, and what clients send in its place.
HOP_BY_HOP = (
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
)


def line_pattern(names: Iterable[str]) -> re.Pattern[bytes]:
    """Matches whole lines of these headers; `x-forwarded-*` stands for every name so begun."""
    groups = []
    # Branching on the first letter before anything case-insensitive makes the scan twice as fast.
    for first, same in groupby(sorted(set(names)), key=lambda name: name[0]):
        rest = "|".join(
            re.escape(name[1:-1]) + "[^:]*" if name.endswith("*") else re.escape(name[1:])
            for name in same
        )
        groups.append(f"[{first}{first.upper()}](?i:{rest})")
    return re.compile(f"(\\n(?:{'|'.join(groups)}):[^\\n]*)".encode())


def split_line(line: bytes) -> tuple[bytes, bytes]:
    """The lower-case name and the trimmed value of a cut line."""
    name, _, value = line.partition(b":")
    return name[1:].lower(), value.strip()


def list_items(value: bytes) -> list[bytes]:
    """The lower-case members of a comma-separated header value."""
    return [item for part in value.lower().split(b",") if (item := part.strip())]
