"""Model, token usage and creation time, read from what the OpenAI and Anthropic APIs answer.

What each answer has, and where:

1. OpenAI chat completions and embeddings: `model`, `created`, `usage {prompt_tokens, …}`.
2. OpenAI responses: `model`, `created_at`, `usage {input_tokens, output_tokens, total_tokens}`.
3. Anthropic messages: `model`, `usage {input_tokens, output_tokens, cache_…_input_tokens}`.
4. Streams of 1: every event has `model` and `created`, the last may have `usage`.
5. Streams of 2: events wrap 2 in `response`; the last one's has `usage`.
6. Streams of 3: `message_start` wraps 3 in `message`; `message_delta` has the `usage` so far.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Final

import msgspec

from llm_proxy.dispatcher.sse import EventBlocks, event_data, events_with, last_events_with

MAX_JSON: Final = 4 << 20  # bytes kept of a JSON body; of a longer one the end is read
_TAIL: Final = 16 << 10
_MAX_MODEL: Final = 256  # characters
_NULL: Final = (b":null", b": null")  # OpenAI's usage in every event of a stream but the last
_UNREADABLE: Final = (msgspec.DecodeError, ValueError, RecursionError)

# 2**53: what any JSON reader takes as an exact number.
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None
_Time = Annotated[float, msgspec.Meta(ge=0, le=2**53)] | None


class Metadata(msgspec.Struct, frozen=True, gc=False):
    """None: the response doesn't say."""

    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    created: int | None = None  # Unix seconds


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: _Count = None
    completion_tokens: _Count = None
    total_tokens: _Count = None
    input_tokens: _Count = None
    output_tokens: _Count = None
    cache_creation_input_tokens: _Count = None
    cache_read_input_tokens: _Count = None


class _Answer(msgspec.Struct, gc=False):
    model: str | None = None
    created: _Time = None
    created_at: _Time = None
    usage: _Usage | None = None


class _Event(_Answer, gc=False):
    type: str | None = None
    message: _Answer | str | None = None
    response: _Answer | str | None = None


NOTHING: Final = Metadata()
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_event = msgspec.json.Decoder(_Event).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def metadata_of_json(body: bytes) -> Metadata:
    """Of a whole JSON body; NOTHING when it can't be read."""
    try:
        answer = _decode_answer(body)
    except _UNREADABLE:
        answer = _read_leniently(body)
    return _metadata(answer.model, answer.created or answer.created_at, answer.usage)


def _read_leniently(body: bytes) -> _Answer:
    """Field by field: one of an unexpected type doesn't cost the others."""
    answer = _Answer()
    with suppress(*_UNREADABLE):
        for name, value in _decode_fields(body).items():
            if name in _Answer.__struct_fields__:
                with suppress(*_UNREADABLE):
                    one = _decode_answer(b'{"%s":%s}' % (name.encode(), value))
                    setattr(answer, name, getattr(one, name))
    return answer


def _metadata(model: str | None, created: float | None, usage: _Usage | None) -> Metadata:
    if model is not None and len(model) > _MAX_MODEL:
        model = model[:_MAX_MODEL]
    if created is not None:
        created = int(created)
    if usage is None:
        return Metadata(model, None, None, None, created)
    prompt, completion, total = usage.prompt_tokens, usage.completion_tokens, usage.total_tokens
    if prompt is None and usage.input_tokens is not None:
        # Anthropic counts what it read from or wrote to its cache apart from `input_tokens`.
        prompt = (
            usage.input_tokens
            + (usage.cache_creation_input_tokens or 0)
            + (usage.cache_read_input_tokens or 0)
        )
    if completion is None:
        completion = usage.output_tokens
    if total is None and prompt is not None and completion is not None:
        total = prompt + completion
    return Metadata(model, prompt, completion, total, created)


class JsonMetadata:
    """Reads a JSON body that arrives in pieces."""

    def __init__(self) -> None:
        self._body = bytearray()
        self._is_cut = False

    @property
    def held(self) -> int:
        return len(self._body)

    def feed(self, piece: bytes) -> None:
        self._body += piece
        if len(self._body) > MAX_JSON or self._is_cut:
            self._is_cut = True
            del self._body[:-_TAIL]

    def finish(self) -> Metadata:
        body = bytes(self._body)
        return _metadata_of_tail(body) if self._is_cut else metadata_of_json(body)


def _metadata_of_tail(tail: bytes) -> Metadata:
    """Embeddings have `model` and `usage` behind their megabytes of numbers.

    From a key of the top level to the end is valid JSON once a brace is put before it. From a key
    of an inner object there is one brace too many, and in a string the quotes are escaped.
    """
    for at in sorted(tail.find(key) for key in (b'"model"', b'"usage"')):
        if at >= 0 and (found := metadata_of_json(b"{" + tail[at:])) != NOTHING:
            return found
    return NOTHING


class StreamMetadata:
    """Reads an event stream; parses only the event that names the model, the first usage and the
    last one of each block."""

    def __init__(self) -> None:
        self._blocks = EventBlocks()
        self._model: str | None = None
        self._created: float | None = None
        self._first_usage: _Usage | None = None
        self._last_usage: _Usage | None = None

    @property
    def held(self) -> int:
        return self._blocks.held

    def feed(self, piece: bytes) -> None:
        if block := self._blocks.feed(piece):
            self._search(block)

    def finish(self) -> Metadata:
        if block := self._blocks.finish():
            self._search(block)
        usage = self._last_usage
        if usage is not None and self._first_usage is not None:
            usage = _later(self._first_usage, usage)
        return _metadata(self._model, self._created, usage)

    def _search(self, block: bytes) -> None:
        if self._model is None:
            named = (_read(event) for event in events_with(block, b'"model"'))
            if (answer := next((found for found in named if found.model), None)) is not None:
                self._model = answer.model
                self._created = answer.created or answer.created_at
        if self._first_usage is None:
            self._first_usage = _first_usage(events_with(block, b'"usage"'))
        last = _first_usage(last_events_with(block, b'"usage"', unless=_NULL))
        self._last_usage = last or self._last_usage


def _first_usage(events: Iterator[bytes]) -> _Usage | None:
    return next((usage for event in events if (usage := _read(event).usage) is not None), None)


def _read(event: bytes) -> _Answer:
    """What it says of an answer; nothing when it can't be read."""
    try:
        said = _decode_event(event_data(event))
    except _UNREADABLE:
        return _Answer()
    answer = _answer_in(said)
    if said.type == "message_start" and answer.usage is not None:
        answer.usage.output_tokens = None  # a placeholder that `message_delta` replaces
    return answer


def _answer_in(event: _Event) -> _Answer:
    for inner in (event.response, event.message):
        if isinstance(inner, _Answer):
            return inner
    return event


def _later(earlier: _Usage, later: _Usage) -> _Usage:
    """Counts in a stream are totals so far, and not every event repeats all of them."""
    for name in _Usage.__struct_fields__:
        before, now = getattr(earlier, name), getattr(later, name)
        if before is not None and (now is None or now < before):
            setattr(later, name, before)
    return later
