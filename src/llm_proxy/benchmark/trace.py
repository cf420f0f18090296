"""Recorded traffic that is to be sent again: JSONL, a line for each request."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from llm_proxy.benchmark.plan import Replay
from llm_proxy.benchmark.trace_bodies import FORMS, TraceBodies
from llm_proxy.benchmark.trace_times import TraceClock
from llm_proxy.benchmark.workload_files import read_file
from llm_proxy.errors import ConfigError

MOST_LINES: Final = 1_000_000
LARGEST: Final = 256 * 1024 * 1024  # of the file, and of the bodies, of which each process has all
LONGEST_S: Final = 24 * 3600.0
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    replay: Replay
    bodies: tuple[bytes, ...]  # each once, however often it is sent
    left_out: int  # records that ask for nothing that could be sent
    is_made_up: bool  # some prompt is


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """How fast a trace is replayed, and after what the replay ends."""

    speed: float = 1.0
    requests: int | None = None
    duration_s: float | None = None


class _Stamp(msgspec.Struct, gc=False):
    timestamp: Any


_stamps: Final = msgspec.json.Decoder(_Stamp)


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    at_s: float
    text: bytes


def read_trace(
    path: Path, bodies: TraceBodies, excerpt: Excerpt, *, largest: int = LARGEST
) -> Trace:
    """Raises ConfigError."""
    chosen, left_out = _Chosen(excerpt), 0
    for line in sorted(_lines(path), key=lambda line: line.at_s):
        body = _body(path, line, bodies)
        if body is None:
            left_out += 1
            continue
        goes_on = chosen.take(line.at_s, body)
        if chosen.size > largest:
            raise ConfigError(
                f"{path} needs more than {largest >> 20} MiB of request bodies; "
                "replay less of it with --duration or --requests"
            )
        if not goes_on:
            break
    if not chosen.offsets:
        raise ConfigError(_nothing(path, left_out))
    if chosen.offsets[-1] > LONGEST_S:
        raise ConfigError(
            f"{path} takes more than a day; raise --speed, or end it with --duration or --requests"
        )
    return Trace(
        replay=Replay(offsets_s=tuple(chosen.offsets), bodies=tuple(chosen.order)),
        bodies=tuple(chosen.numbers),
        left_out=left_out,
        is_made_up=bodies.has_made_up,
    )


class _Chosen:
    """What of a trace is sent."""

    def __init__(self, excerpt: Excerpt) -> None:
        self._excerpt = excerpt
        self._began_s: float | None = None
        self.offsets: list[float] = []
        self.order: list[int] = []  # of the bodies, by their numbers
        self.numbers: dict[bytes, int] = {}
        self.size = 0  # of all bodies

    def take(self, at_s: float, body: bytes) -> bool:
        """The next request; False when no other one follows."""
        if self._began_s is None:
            self._began_s = at_s
        offset_s = (at_s - self._began_s) / self._excerpt.speed
        if self._excerpt.duration_s is not None and offset_s >= self._excerpt.duration_s:
            return False
        self.size += 0 if body in self.numbers else len(body)
        self.offsets.append(offset_s)
        self.order.append(self.numbers.setdefault(body, len(self.numbers)))
        return len(self.offsets) != self._excerpt.requests


def _lines(path: Path) -> list[_Line]:
    clock = TraceClock()
    found: list[_Line] = []
    lines = read_file(path, "--replay", most=LARGEST).split(b"\n")
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        if len(found) == MOST_LINES:
            raise ConfigError(f"{path} has more than {MOST_LINES} lines; split it")
        try:
            found.append(_Line(number, clock.seconds(_stamp(text), number), text))
        except ValueError as exc:
            raise ConfigError(f"{path}, line {number}: {exc}") from None
    return found


def _stamp(text: bytes) -> Any:
    try:
        return _stamps.decode(text).timestamp
    except _UNREADABLE as exc:
        raise ValueError(f"it must be a JSON object with a timestamp ({exc})") from exc


def _body(path: Path, line: _Line, bodies: TraceBodies) -> bytes | None:
    try:
        return bodies.body(msgspec.json.decode(line.text, type=dict[str, Any]))
    except UnicodeDecodeError:
        raise ConfigError(f"{path}, line {line.number}: it isn't UTF-8, as JSON is") from None
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"{path}, line {line.number}: {exc}") from None


def _nothing(path: Path, left_out: int) -> str:
    if left_out:
        return (
            f"{path} has no record of this endpoint whose prompt_tokens are known "
            f"({left_out} others); --preset or --endpoint chooses another"
        )
    return f"{path} holds no request; give a timestamp and {FORMS} on each line"
