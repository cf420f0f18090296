from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_proxy.benchmark.mock_options import MockOptions
from llm_proxy.benchmark.mock_request import Request
from llm_proxy.benchmark.mock_service import MockService
from llm_proxy.benchmark.samples import TICKS_PER_MS
from llm_proxy.benchmark.stream_meter import LONGEST_LINE, MOST_GAPS, StreamMeter

MESSAGES = [{"role": "user", "content": 'Say "hi" to {"error":{}} and [DONE]'}]
DONE = b"data: [DONE]\n\n"


def _streamed(path: bytes, **body: Any) -> list[bytes]:
    """The events of the mock's answer of 7 tokens."""
    keys = [(b"authorization", b"Bearer k"), (b"anthropic-version", b"1"), (b"x-mock-tokens", b"7")]
    request = Request("POST", path, keys)
    service = MockService(MockOptions())
    service.prepare(request)
    request.feed(json.dumps({"model": "m", "stream": True, **body}).encode())
    answer, _ = service.answer(request)
    assert answer.events is not None
    return [data for _, data in answer.events]


STREAMS = {
    "chat": _streamed(b"/v1/chat/completions", messages=MESSAGES),
    "chat with usage": _streamed(
        b"/v1/chat/completions", messages=MESSAGES, stream_options={"include_usage": True}
    ),
    "messages": _streamed(b"/v1/messages", messages=MESSAGES, max_tokens=50),
    "responses": _streamed(b"/v1/responses", input=MESSAGES),
}
# How many events come before the first that says something.
SILENT = {"chat": 1, "chat with usage": 1, "messages": 3, "responses": 4}


def _measured(*pieces: bytes) -> StreamMeter:
    meter = StreamMeter()
    for now, piece in enumerate(pieces):
        meter.feed(piece, now * 1000)
    return meter


def _seen(meter: StreamMeter) -> tuple[object, ...]:
    return (meter.tokens, meter.events, meter.is_complete, meter.has_error)


def _chat(delta: dict[str, Any], **fields: Any) -> bytes:
    chunk = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}], **fields}
    return b"data: %b\n\n" % json.dumps(chunk, separators=(",", ":")).encode()


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_of_each_api_is_timed_by_the_events_that_say_something(name: str) -> None:
    meter = _measured(*STREAMS[name])
    assert _seen(meter) == (7, 7, True, False)
    assert meter.first_token == SILENT[name] * 1000
    assert meter.second_token == (SILENT[name] + 1) * 1000
    assert list(meter.gaps) == [1000] * 6
    assert meter.mean_gap() == 1000


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_without_its_last_event_is_incomplete(name: str) -> None:
    assert not _measured(*STREAMS[name][:-1]).is_complete


@given(st.data())
@settings(deadline=None)
def test_where_a_stream_is_cut_changes_nothing_that_is_seen(data: st.DataObject) -> None:
    events = STREAMS[data.draw(st.sampled_from(sorted(STREAMS)))]
    ending = data.draw(st.sampled_from([b"\n", b"\r\n"]))
    whole = b"".join(events).replace(b"\n", ending)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=20)))
    bounds = [0, *cuts, len(whole)]
    pieces = [whole[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
    meter, uncut = _measured(*pieces), _measured(whole)
    assert _seen(meter) == _seen(uncut) == (7, 7, True, False)
    assert 0 <= meter.first_token <= meter.second_token
    assert len(meter.gaps) == 6


@given(st.lists(st.binary(max_size=60) | st.sampled_from(sum(STREAMS.values(), [])), max_size=12))
@settings(deadline=None)
def test_anything_can_be_fed_byte_by_byte_or_whole(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    by_byte = _measured(*(whole[i : i + 1] for i in range(len(whole))))
    assert _seen(by_byte) == _seen(_measured(whole)) == _seen(_measured(*pieces))


def test_spaces_after_colons_change_nothing() -> None:
    chunks = [
        b'data:{"choices" : [{"delta": {"content":  "%b"}}], "usage": null}\n\n' % word
        for word in (b"", b"a", b"b")
    ]
    usage = b'data: {"choices": [], "usage": {"completion_tokens": 41}}\n\n'
    meter = _measured(*chunks, usage, b"data:[DONE]\n\n")
    assert _seen(meter) == (41, 2, True, False)
    assert meter.first_token == 1000


@pytest.mark.parametrize(
    "delta",
    [
        {"content": None, "reasoning_content": "Hm"},
        {"reasoning": "Hm"},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a'}}]},
        {"refusal": "No"},
        {"content": '"'},
    ],
)
def test_thoughts_tool_calls_and_refusals_say_something_too(delta: dict[str, Any]) -> None:
    meter = _measured(_chat({"role": "assistant", "content": ""}), _chat(delta), _chat(delta), DONE)
    assert (meter.first_token, meter.second_token) == (1000, 2000)


def test_legacy_completions_say_it_as_text() -> None:
    assert _measured(b'data: {"choices":[{"text":"a"}]}\n\n', DONE).events == 1


def test_events_that_say_nothing_between_tokens_dont_break_the_gap() -> None:
    said, silent = _chat({"content": "a"}), _chat({"content": ""})
    meter = _measured(said, silent, b": ping\n\n", said, said)
    assert list(meter.gaps) == [3000, 1000]


def test_what_a_signature_says_is_no_token() -> None:
    start = b'data: {"type":"message_start","message":{"usage":{"output_tokens":1}}}\n\n'
    signature = (
        b'data: {"type":"content_block_delta","delta":{"type":"signature_delta","signature":"x"}}'
    )
    assert _measured(start, signature + b"\n\n").events == 0


def test_tokens_in_one_piece_have_no_gap() -> None:
    meter = _measured(b"", b"".join(STREAMS["chat"]))
    assert list(meter.gaps) == [0] * 6
    assert meter.first_token == meter.second_token == 1000
    assert meter.mean_gap() == 0


def test_one_token_has_no_second_and_no_gap() -> None:
    meter = _measured(_chat({"content": "a"}), DONE)
    assert (meter.second_token, meter.mean_gap(), meter.stalls()) == (-1, -1, 0)


def test_nothing_said_is_no_first_token() -> None:
    meter = _measured(_chat({"role": "assistant", "content": ""}), DONE)
    assert (meter.first_token, meter.tokens, meter.is_complete) == (-1, 0, True)


def test_usage_told_before_the_stream_went_on_is_out_of_date() -> None:
    """As message_start's is, when the stream breaks off."""
    assert _measured(*STREAMS["messages"][:6]).tokens == 3


def test_usage_told_with_each_token_counts() -> None:
    chunks = [_chat({"content": "a b"}, usage={"completion_tokens": 2 * n}) for n in (1, 2, 3)]
    assert _measured(*chunks).tokens == 6


def test_the_last_event_counts_without_the_end_of_its_line() -> None:
    assert _measured(*STREAMS["chat"][:-1], b"data: [DO", b"NE]").is_complete


def test_every_event_of_an_unknown_format_is_a_token_and_any_end_will_do() -> None:
    meter = _measured(b": hello\n\n", b'data: {"x": 1}\n\n', b"id: 7\ndata: 2\n\n", b"data:\n\n")
    assert _seen(meter) == (2, 2, True, False)
    assert list(meter.gaps) == [1000]


def test_a_stream_that_said_nothing_at_all_is_incomplete() -> None:
    assert not _measured(b": ping\n\n").is_complete


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"error":{"message":"Overloaded"}}\n\n',
        b'data: {"error": "Overloaded"}\n\n',
        b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n',
        b"event: error\ndata: Overloaded\n\n",
    ],
)
@pytest.mark.parametrize("name", [None, *STREAMS])
def test_an_error_event_is_seen_wherever_it_comes(name: str | None, event: bytes) -> None:
    before = [] if name is None else STREAMS[name][:6]
    meter = _measured(*before, event)
    assert meter.has_error
    assert name is None or not meter.is_complete


def test_an_error_within_a_chunk_is_seen() -> None:
    meter = _measured(_chat({"content": ""}, error={"code": 502, "message": "gone"}), DONE)
    assert meter.has_error


def test_a_failed_response_is_at_its_end_and_an_error() -> None:
    failed = b'data: {"type":"response.failed","response":{"error":{"code":"server_error"}}}\n\n'
    assert _seen(_measured(*STREAMS["responses"][:4], failed)) == (0, 0, True, True)


def test_an_item_that_tells_of_a_tools_error_is_no_error_of_the_stream() -> None:
    item = b'data: {"type":"response.output_item.done","item":{"error":{"code":1}}}\n\n'
    assert not _measured(*STREAMS["responses"][:4], item).has_error


def test_stalls_are_gaps_over_ten_times_the_median_of_the_others() -> None:
    meter = StreamMeter()
    now = 0
    for gap_ms in (0, 5, 5, 0, 0, 0, 0, 0, 50, 51, 5, 200, 4):
        now += gap_ms * TICKS_PER_MS
        meter.feed(_chat({"content": "a"}), now)
    assert meter.stalls() == 2


def test_gaps_below_ten_milliseconds_are_no_stalls_however_fast_the_stream() -> None:
    meter = StreamMeter()
    for now in (0, 10, 20, 30, 40, 40 + 10 * TICKS_PER_MS, 40 + 20 * TICKS_PER_MS + 1):
        meter.feed(_chat({"content": "a"}), now)
    assert meter.stalls() == 1


@pytest.mark.parametrize(
    ("gaps_ms", "stalls"), [((300, 0), 1), ((0, 300, 0, 1), 1), ((300,), 0), ((300, 300, 0), 0)]
)
def test_the_longest_gap_is_not_its_own_measure(gaps_ms: tuple[int, ...], stalls: int) -> None:
    """As of tokens that arrive in few pieces; a single gap has nothing to be held against."""
    meter = StreamMeter()
    now = 0
    for gap_ms in (0, *gaps_ms):
        now += gap_ms * TICKS_PER_MS
        meter.feed(_chat({"content": "a"}), now)
    assert meter.stalls() == stalls


def test_of_a_line_without_end_only_so_much_is_kept() -> None:
    meter = _measured(*[b"x" * 100_000] * 5)
    assert len(meter._rest) == LONGEST_LINE


def test_usage_at_the_end_of_an_enormous_event_is_read() -> None:
    final = b'data: {"type":"response.completed","text":"%b","usage":{"output_tokens":9}}\n\n'
    enormous = final % (b"x" * 300_000)
    events = STREAMS["responses"][:-1]
    assert _seen(_measured(*events, enormous)) == (9, 7, True, False)
    cut = [enormous[i : i + 10_000] for i in range(0, len(enormous), 10_000)]
    assert _seen(_measured(*events, *cut)) == (9, 7, True, False)


def test_gaps_are_kept_up_to_a_limit_and_their_mean_is_of_all() -> None:
    meter = StreamMeter()
    several = _chat({"content": "a"}) * 1000
    for now in range(0, 150_000, 1000):
        meter.feed(several, now)
    assert len(meter.gaps) == MOST_GAPS
    assert meter.events == 150_000
    meter.feed(several, 150_999 * 3)
    assert meter.mean_gap() == 3
