"""Text of others without what could move the cursor, recolour or rename a terminal."""

from __future__ import annotations

import re
from typing import Final

# Control characters but for tab and newline; the C1 ones begin sequences, too (ECMA-48). Those
# that change the direction would show code in another order than it runs in.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_SEQUENCES: Final = re.compile(
    r"(?:\x1b\[|\x9b)[\x20-\x3f]*[\x40-\x7e]"  # CSI: colours, the cursor
    # OSC, DCS, SOS, PM, APC: strings up to BEL or ST; a line's end breaks them off
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c|(?=\n))"
    r"|\x1b[\x20-\x2f]*[\x30-\x5a\x5c\x60-\x7e]"  # all others
)
_UNFINISHED: Final = re.compile(
    r"(?:(?:\x1b\[|\x9b)[\x20-\x3f]*"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*\x1b?"
    r"|\x1b[\x20-\x2f]*)\Z"
)
_LONGEST_SEQUENCE: Final = 4096


class PlainText:
    """Cleans a text that comes in pieces, which may cut a sequence in two."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, piece: str) -> str:
        text = self._held + piece
        begun = _UNFINISHED.search(text)
        if begun is None or len(begun[0]) > _LONGEST_SEQUENCE:
            self._held = ""
        else:
            self._held = begun[0]
            text = text[: begun.start()]
        return clean(text)

    def finish(self) -> str:
        left, self._held = self._held, ""
        return clean(left)


def clean(text: str) -> str:
    if text.isprintable():
        return text
    return _CONTROLS.sub("", _SEQUENCES.sub("", text))


def clean_line(text: str) -> str:
    """The same as one line."""
    return " ".join(clean(text.replace("\r", "\n")).split())
