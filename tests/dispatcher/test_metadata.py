from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.dispatcher.metadata import (
    MAX_JSON,
    NOTHING,
    JsonMetadata,
    Metadata,
    StreamMetadata,
    metadata_of_json,
)

CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1677652288,
    "model": "gpt-4o-mini",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": 'a "usage": {} b'}}],
    "usage": {
        "prompt_tokens": 9,
        "completion_tokens": 12,
        "total_tokens": 21,
        "prompt_tokens_details": {"cached_tokens": 3},
    },
}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1741476542.0,
    "model": "gpt-4.1",
    "output": [{"type": "message", "content": [{"text": "hi"}]}],
    "usage": {"input_tokens": 36, "output_tokens": 87, "total_tokens": 123},
}
EMBEDDING = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.1, -0.2]}],
    "model": "text-embedding-3-small",
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": "Hi"}],
    "usage": {
        "input_tokens": 10,
        "cache_creation_input_tokens": 200,
        "cache_read_input_tokens": 3000,
        "output_tokens": 7,
    },
}


def of(document: object) -> Metadata:
    return metadata_of_json(json.dumps(document).encode())


def sse(*events: object, names: bool = False) -> bytes:
    """A stream of events, the dialect of Anthropic when `names`."""
    out = b""
    for event in events:
        if names and isinstance(event, dict):
            out += b"event: %s\n" % str(event["type"]).encode()
        data = event if isinstance(event, str) else json.dumps(event, separators=(",", ":"))
        out += b"data: %s\n\n" % data.encode()
    return out


def of_stream(*pieces: bytes) -> Metadata:
    stream = StreamMetadata()
    for piece in pieces:
        stream.feed(piece)
    return stream.finish()


# ---- whole JSON bodies ----


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (CHAT, Metadata("gpt-4o-mini", 9, 12, 21, 1677652288)),
        (RESPONSE, Metadata("gpt-4.1", 36, 87, 123, 1741476542)),
        (EMBEDDING, Metadata("text-embedding-3-small", 8, None, 8, None)),
        (MESSAGE, Metadata("claude-sonnet-4-5", 3210, 7, 3217, None)),
        ({"model": "llama", "response": "text", "message": "text"}, Metadata(model="llama")),
        ({"error": {"message": "no", "type": "invalid_request_error"}}, NOTHING),
        ({"model": "m", "usage": None, "created": None}, Metadata(model="m")),
        ({"model": "m", "usage": {}}, Metadata(model="m")),
        ([], NOTHING),
        ("text", NOTHING),
    ],
)
def test_answers_of_each_api(document: object, expected: Metadata) -> None:
    assert of(document) == expected


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"model": 5}, Metadata(None, 9, 12, 21, 1677652288)),
        ({"created": "yesterday"}, Metadata("gpt-4o-mini", 9, 12, 21, None)),
        ({"created": 1e300}, Metadata("gpt-4o-mini", 9, 12, 21, None)),
        ({"usage": "none"}, Metadata("gpt-4o-mini", None, None, None, 1677652288)),
        ({"usage": {"prompt_tokens": -1}}, Metadata("gpt-4o-mini", None, None, None, 1677652288)),
        ({"usage": {"prompt_tokens": 2**64}}, Metadata("gpt-4o-mini", created=1677652288)),
    ],
)
def test_field_of_an_odd_type_does_not_cost_the_others(
    changed: dict[str, object], expected: Metadata
) -> None:
    assert of(CHAT | changed) == expected


def test_long_model_name_is_cut() -> None:
    assert of({"model": "m" * 10_000}).model == "m" * 256


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"<html></html>",
        json.dumps(CHAT).encode()[:-1],
        b"[" * 100_000,
        b'{"choices":' + b"[" * 100_000,
        b'{"model":"\xff"}',
        b'{"model":"\\ud800"}',
    ],
)
def test_what_can_not_be_read_is_nothing(body: bytes) -> None:
    assert metadata_of_json(body) == NOTHING


@given(st.binary(max_size=200))
def test_garbage_never_raises(data: bytes) -> None:
    metadata_of_json(data)
    metadata_of_json(b'{"model":"m","usage":{"prompt_tokens":' + data)
    of_stream(data)
    of_stream(b"data: " + data + b'{"model":"m","usage":' + data + b"\n\n")


# ---- JSON in pieces ----


def of_pieces(body: bytes, size: int) -> Metadata:
    reader = JsonMetadata()
    for start in range(0, len(body), size):
        reader.feed(body[start : start + size])
        assert reader.held <= MAX_JSON
    return reader.finish()


def test_json_in_pieces_is_the_same_as_whole() -> None:
    assert of_pieces(json.dumps(CHAT).encode(), 7) == of(CHAT)


@pytest.mark.parametrize("keys", [("model", "usage"), ("usage", "model")])
def test_end_of_a_very_long_body_is_read_in_bounded_memory(keys: tuple[str, str]) -> None:
    end = json.dumps({key: EMBEDDING[key] for key in keys})
    numbers = b"0.123456789," * (MAX_JSON // 10)
    body = b'{"data":[{"embedding":[' + numbers + b"0]}]," + end[1:].encode()
    assert of_pieces(body, 1 << 16) == of(EMBEDDING)


def test_keys_inside_of_a_very_long_body_are_not_taken_for_its_own() -> None:
    long = "x" * MAX_JSON
    text = '","model":"forged","usage":{"prompt_tokens":1}}'
    for inner in (text, {"model": "inner", "usage": {"prompt_tokens": 1}}):
        assert of_pieces(json.dumps({"text": long, "last": inner}).encode(), 1 << 20) == NOTHING


# ---- streams ----

CHUNKS = [
    {
        "id": "c",
        "created": 1677652288,
        "model": "gpt-4o-mini",
        "choices": [{"delta": {"content": word}}],
        "usage": None,
    }
    for word in ("Hello", ' "usage":{} ', "world")
]
LAST = {
    "id": "c",
    "created": 1677652288,
    "model": "gpt-4o-mini",
    "choices": [],
    "usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21},
}
OPENAI = sse(*CHUNKS, LAST, "[DONE]")
RESPONSES = sse(
    {"type": "response.created", "response": RESPONSE | {"usage": None}},
    {"type": "response.output_text.delta", "delta": 'say "usage"'},
    {"type": "response.completed", "response": RESPONSE},
    names=True,
)
ANTHROPIC = sse(
    {
        "type": "message_start",
        "message": MESSAGE | {"usage": MESSAGE["usage"] | {"output_tokens": 1}},  # type: ignore[operator]
    },
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 3}},
    {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 7}},
    {"type": "message_stop"},
    names=True,
)
NAMELESS = sse(
    {"type": "message_start", "message": {"usage": {"input_tokens": 3}}},
    {"type": "message_delta", "usage": {"output_tokens": 9}},
    {"type": "message_delta", "usage": {"output_tokens": 4}},
    names=True,
)
STREAMS = [
    (NAMELESS, Metadata(None, 3, 4, 7, None)),
    (OPENAI, Metadata("gpt-4o-mini", 9, 12, 21, 1677652288)),
    (RESPONSES, Metadata("gpt-4.1", 36, 87, 123, 1741476542)),
    (ANTHROPIC, Metadata("claude-sonnet-4-5", 3210, 7, 3217, None)),
]


@pytest.mark.parametrize(("stream", "expected"), STREAMS)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_streams_of_each_api(stream: bytes, expected: Metadata, end: bytes) -> None:
    assert of_stream(stream.replace(b"\n", end)) == expected


@pytest.mark.parametrize(("stream", "expected"), STREAMS)
@given(at=st.lists(st.integers(0, 2_000), max_size=8))
def test_any_cutting_gives_the_same(stream: bytes, expected: Metadata, at: list[int]) -> None:
    marks = [0, *sorted(mark % (len(stream) + 1) for mark in at), len(stream)]
    assert of_stream(*(stream[a:b] for a, b in zip(marks, marks[1:], strict=False))) == expected


def test_stream_without_usage_still_names_its_model() -> None:
    expected = Metadata("gpt-4o-mini", None, None, None, 1677652288)
    assert of_stream(sse(*CHUNKS, "[DONE]")) == expected


def test_spaced_null_usage_is_no_usage() -> None:
    stream = b"".join(b"data: %s\n\n" % json.dumps(chunk).encode() for chunk in CHUNKS)
    assert b'"usage": null' in stream
    assert of_stream(stream).total_tokens is None


def test_cut_stream_of_anthropic_has_what_it_said_so_far() -> None:
    start = ANTHROPIC[: ANTHROPIC.index(b"event: ping")]
    assert of_stream(start) == Metadata("claude-sonnet-4-5", 3210, None, None, None)


def test_last_event_counts_without_its_blank_line() -> None:
    assert of_stream(sse(*CHUNKS, LAST)[:-2]).total_tokens == 21
    assert of_stream(sse(*CHUNKS, LAST)[:-9]).total_tokens is None


def test_later_totals_win_and_zero_does_not_take_a_count_back() -> None:
    events = [
        {"model": "m", "usage": {"prompt_tokens": 5, "completion_tokens": n, "total_tokens": 5 + n}}
        for n in (1, 2, 3)
    ]
    assert of_stream(*map(sse, events)) == Metadata("m", 5, 3, 8, None)
    zero = {"type": "message_delta", "usage": {"input_tokens": 0, "output_tokens": 7}}
    head = ANTHROPIC[: ANTHROPIC.index(b"event: ping")]
    assert of_stream(head, sse(zero)).prompt_tokens == 3210


def test_data_over_several_lines_is_one_document() -> None:
    pretty = json.dumps(LAST, indent=1).replace("\n", "\ndata: ")
    assert of_stream(b"data: " + pretty.encode() + b"\n\n").total_tokens == 21


def test_usage_inside_of_something_else_is_passed_over() -> None:
    stream = sse(LAST, {"metadata": {"usage": {"prompt_tokens": 1}}}, {"usage": "none"})
    assert of_stream(stream).prompt_tokens == 9


def test_memory_of_a_stream_is_bounded_by_one_event() -> None:
    stream = StreamMetadata()
    for _ in range(50):
        stream.feed(OPENAI)
    assert stream.held == 0
    stream.feed(b"data: half")
    assert stream.held == len(b"data: half")
