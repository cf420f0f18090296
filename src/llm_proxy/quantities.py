"""Durations and sizes as people write them: `30s`, `1h30m`, `10MB`."""

from __future__ import annotations

import re

_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[dhms]))+", re.ASCII)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_LONGEST = 100 * 365 * _SECONDS["d"]

# As in the reference's world (nginx, Docker): kilo is 1024, with or without the i.
_BYTES = {"": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.ASCII | re.IGNORECASE)
_LARGEST = 2**60


def parse_duration(text: str, *, bare_unit: str | None = None) -> float:
    """Seconds. `bare_unit` (`s`, `m`, …) is what a number without a unit means, if it may stand."""
    text = text.strip()
    if _DURATION.fullmatch(text):
        parts = _DURATION_PART.findall(text)
    elif bare_unit is not None and _NUMBER.fullmatch(text):
        parts = [(text, bare_unit)]
    else:
        raise ValueError(f"{_shown(text)} isn't a duration; write it like 30s, 5m, 24h or 1h30m")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if seconds > _LONGEST:
        raise ValueError(f"{_shown(text)} is longer than 100 years")
    return seconds


def parse_size(text: str) -> int:
    """Bytes."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{_shown(text)} isn't a size; write it like 512KB, 10MB or 1GB")
    size = float(match[1]) * _BYTES[match[2].upper()]
    if size > _LARGEST:
        raise ValueError(f"{_shown(text)} is larger than any machine's memory")
    if size != int(size):
        raise ValueError(f"{_shown(text)} isn't a whole number of bytes")
    return int(size)


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads as these seconds, to the millisecond."""
    left = round(seconds * 1000)
    words = []
    for unit, length in _SECONDS.items():
        count, left = divmod(left, round(length * 1000))
        if count:
            words.append(f"{count}{unit}")
    return "".join(words) or "0s"


def format_size(size: int) -> str:
    """The shortest text that `parse_size` reads as this size."""
    for unit in ("T", "G", "M", "K"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}B"
    return f"{size}B"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")
