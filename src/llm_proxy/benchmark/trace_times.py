"""When the lines of a trace came: which unit their numbers have is told by their size."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

_LEAST_UNIX_MS: Final = 10**11  # in 1973; as seconds that is in 5138
_LEAST_UNIX_S: Final = 10**9  # in 2001; as milliseconds since a start that is twelve days
_LATEST: Final = 10**15
_OF_RFC3339 = "RFC 3339"
_OF_UNIX_MS = "milliseconds of Unix time"
_OF_UNIX_S = "seconds of Unix time"
_OF_S = "seconds since the start"
_OF_MS = "milliseconds since the start"
_OF_EITHER = "seconds or milliseconds since the start"
_SINCE_START: Final = frozenset((_OF_S, _OF_MS, _OF_EITHER))


class TraceClock:
    """Reads the times of one trace, which must all be of one kind."""

    def __init__(self) -> None:
        self._kind = ""
        self._known_from = 0

    def seconds(self, value: Any, line: int) -> float:
        """Raises ValueError that says what is wrong."""
        if isinstance(value, str):
            self._agree(_OF_RFC3339, line)
            return _rfc3339(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError("timestamp must be a number, or a time like 2026-01-05T09:30:12Z")
        if not 0 <= value <= _LATEST:
            seen = max(-1e30, min(value, 1e30))  # JSON's integers may be longer than any float
            raise ValueError(f"timestamp must be from 0 to 10^15, not {seen:.4g}")
        kind = _kind(value)
        self._agree(kind, line)
        return value / 1000 if kind in (_OF_MS, _OF_UNIX_MS) else float(value)

    def _agree(self, kind: str, line: int) -> None:
        both = {kind, self._kind}
        is_same = len(both) == 1 or (_OF_EITHER in both and both <= _SINCE_START)
        if self._kind and not is_same:
            raise ValueError(
                f"timestamp is in {kind}, but that of line {self._known_from} in {self._kind}; "
                "write all of them in one way"
            )
        if self._kind in ("", _OF_EITHER):
            self._kind, self._known_from = kind, line


def _kind(value: float) -> str:
    if value >= _LEAST_UNIX_MS:
        return _OF_UNIX_MS
    if value >= _LEAST_UNIX_S:
        return _OF_UNIX_S
    if not value:  # the same in both units, and often written without its decimal point
        return _OF_EITHER
    return _OF_S if isinstance(value, float) else _OF_MS


def _rfc3339(text: str) -> float:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"timestamp must be a number, or a time like 2026-01-05T09:30:12Z, not {text[:40]!r}"
        ) from None
    # Without a zone it is taken for UTC: only the differences count.
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
