"""Recorded traffic that is to be sent again: JSONL, a line for each request.

What a line asks for, in the order in which it is looked for:

1. A record of our own event log (`request_id` and `metadata`): a prompt of as many tokens is made
   up. One of another endpoint, or whose tokens aren't known, is left out.
2. `body`: a request, complete where it names its model.
3. `messages`, `prompt` or `input`: as a line of --prompts.
4. `input_length`: a prompt of so many tokens is made up.

`output_length`, or what the record says, becomes max_tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from llm_proxy.benchmark.made_text import made_text
from llm_proxy.benchmark.plan import Replay
from llm_proxy.benchmark.presets import Fields, Preset
from llm_proxy.benchmark.trace_times import TraceClock
from llm_proxy.benchmark.workload_files import read_file, request_fields
from llm_proxy.errors import ConfigError

MOST_LINES: Final = 1_000_000
LARGEST: Final = 256 * 1024 * 1024  # of the file, and of the bodies, of which each process has all
LONGEST_S: Final = 24 * 3600.0
_MOST_TOKENS: Final = 2_000_000
_FORMS: Final = "body, messages, prompt or input_length, or be a record of the event log"
_OF_TRACE: Final = frozenset(("timestamp", "input_length", "output_length", "hash_ids"))
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


class Requests:
    """Makes the bodies of a trace's lines."""

    def __init__(
        self, preset: Preset, *, endpoint: str, model: str | None, stream: bool, seed: int
    ) -> None:
        self._preset = preset
        self._endpoint = endpoint.partition("?")[0]
        self._model = model
        self._stream = stream
        self._seed = seed
        self._made: dict[tuple[object, ...], bytes] = {}

    @property
    def has_made_up(self) -> bool:
        return bool(self._made)

    def body(self, line: Fields) -> bytes | None:
        """None for a record that is left out. Raises ValueError."""
        if _is_record(line):
            return self._of_record(line)
        most = _tokens(line, "output_length")
        if "body" in line:
            if not isinstance(line["body"], dict):
                raise ValueError("body must be an object, the body of a request")
            return self._encoded(self._limited(line["body"], most), self._stream)
        if any(name in line for name in ("messages", "prompt", "input")):
            own = {name: value for name, value in line.items() if name not in _OF_TRACE}
            fields = self._limited(request_fields(own, self._preset), most)
            return self._encoded(fields, self._stream)
        length = _tokens(line, "input_length")
        if length is None:
            raise ValueError(f"it must have {_FORMS}")
        return self._made_up(length, most, stream=self._stream)

    def _of_record(self, line: Fields) -> bytes | None:
        endpoint, metadata = line.get("endpoint"), line["metadata"]
        length = _tokens(metadata, "prompt_tokens")
        if length is None or not (endpoint and self._endpoint.endswith(str(endpoint))):
            return None
        model = metadata.get("model")
        return self._made_up(
            length,
            _tokens(metadata, "completion_tokens"),
            stream=self._stream or (line.get("stream") is True and self._preset.can_stream),
            model=model if isinstance(model, str) else None,
        )

    def _made_up(
        self, length: int, most: int | None, *, stream: bool, model: str | None = None
    ) -> bytes:
        """Made once: traces have the same lengths again and again."""
        made = length, most, stream, model
        if made not in self._made:
            own = {"model": model, **self._preset.fields} if model else {}
            asked = self._preset.asking(made_text(max(1, length), f"{self._seed}/{length}/{most}"))
            self._made[made] = self._encoded(self._limited({**own, **asked}, most), stream)
        return self._made[made]

    def _encoded(self, fields: Fields, stream: bool) -> bytes:
        return self._preset.body(fields, model=self._model, stream=stream)

    def _limited(self, fields: Fields, most: int | None) -> Fields:
        """An API that answers with text can be told how long."""
        if most is None or not self._preset.takes_messages:
            return fields
        return {**fields, "max_tokens": max(1, most)}


def read_trace(
    path: Path, requests: Requests, excerpt: Excerpt, *, largest: int = LARGEST
) -> Trace:
    """Raises ConfigError."""
    bodies: dict[bytes, int] = {}
    offsets: list[float] = []
    chosen: list[int] = []
    began_s, size, left_out = None, 0, 0
    for line in sorted(_lines(path), key=lambda line: line.at_s):
        body = _body(path, line, requests)
        if body is None:
            left_out += 1
            continue
        began_s = line.at_s if began_s is None else began_s
        offset_s = (line.at_s - began_s) / excerpt.speed
        if excerpt.duration_s is not None and offset_s >= excerpt.duration_s:
            break
        size += 0 if body in bodies else len(body)
        if size > largest:
            raise ConfigError(
                f"{path} needs more than {largest >> 20} MiB of request bodies; "
                "replay less of it with --duration or --requests"
            )
        offsets.append(offset_s)
        chosen.append(bodies.setdefault(body, len(bodies)))
        if len(offsets) == excerpt.requests:
            break
    if not offsets:
        raise ConfigError(_nothing(path, left_out))
    if offsets[-1] > LONGEST_S:
        raise ConfigError(
            f"{path} takes more than a day; raise --speed, or end it with --duration or --requests"
        )
    return Trace(
        replay=Replay(offsets_s=tuple(offsets), bodies=tuple(chosen)),
        bodies=tuple(bodies),
        left_out=left_out,
        is_made_up=requests.has_made_up,
    )


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


def _body(path: Path, line: _Line, requests: Requests) -> bytes | None:
    try:
        return requests.body(msgspec.json.decode(line.text, type=dict[str, Any]))
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"{path}, line {line.number}: {exc}") from None


def _is_record(line: Fields) -> bool:
    return "request_id" in line and isinstance(line.get("metadata"), dict)


def _tokens(fields: Fields, name: str) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_TOKENS:
        raise ValueError(f"{name} must be a whole number from 0 to {_MOST_TOKENS}")
    return value


def _nothing(path: Path, left_out: int) -> str:
    if left_out:
        return (
            f"{path} has no record of this endpoint whose prompt_tokens are known "
            f"({left_out} others); --preset or --endpoint chooses another"
        )
    return f"{path} holds no request; give a timestamp and {_FORMS} on each line"
