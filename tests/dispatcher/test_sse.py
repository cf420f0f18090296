from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.dispatcher.sse import (
    MAX_EVENT,
    EventBlocks,
    event_data,
    events_with,
    last_events_with,
)

streams = st.lists(
    st.sampled_from(
        ["data: a", "data:b", "event: x", ": note", "\n", "\n\n", "\r\n", "\r", "\r\n\r\n"]
    ),
    max_size=30,
).map(lambda parts: "".join(parts).encode())


def events_of(pieces: list[bytes]) -> list[bytes]:
    blocks = EventBlocks()
    joined = b"".join(map(blocks.feed, pieces)) + blocks.finish()
    return [event for each in joined.split(b"\n\n") if (event := each.strip(b"\n"))]


def reference(stream: bytes) -> list[bytes]:
    """The events of a stream that is there at once."""
    text = re.sub(rb"\r\n|\r", b"\n", stream)
    return [event for each in text.split(b"\n\n") if (event := each.strip(b"\n"))]


@given(streams, st.lists(st.integers(0, 200), max_size=8))
def test_events_are_the_same_however_the_stream_is_cut(stream: bytes, at: list[int]) -> None:
    marks = [0, *sorted(mark % (len(stream) + 1) for mark in at), len(stream)]
    pieces = [stream[a:b] for a, b in zip(marks, marks[1:], strict=False)]
    assert events_of(pieces) == reference(stream) == events_of([bytes([b]) for b in stream])


def test_event_comes_out_with_its_blank_line_and_not_before() -> None:
    blocks = EventBlocks()
    assert blocks.feed(b"data: 1\n") == b""
    assert blocks.feed(b"\ndata: 2") == b"data: 1\n\n"
    assert blocks.held == len(b"data: 2")


def test_bytes_like_a_bom_are_none_after_the_start() -> None:
    stream = b"\n\n\xef\xbb\xbfdata: 1\n\n"
    assert events_of([stream]) == [b"\xef\xbb\xbfdata: 1"]
    assert events_of([stream[:2], stream[2:]]) == [b"\xef\xbb\xbfdata: 1"]


@pytest.mark.parametrize(
    "pieces", [[b"\xef\xbb\xbfdata: 1\n\n"], [b"\xef", b"\xbb\xbfdata: 1\n\n"]]
)
def test_byte_order_mark_is_skipped(pieces: list[bytes]) -> None:
    assert events_of(pieces) == [b"data: 1"]


def test_event_that_is_too_long_is_passed_over_in_bounded_memory() -> None:
    blocks = EventBlocks()
    assert blocks.feed(b"data: before\n\n") == b"data: before\n\n"
    for _ in range(12):
        assert blocks.feed(b"x" * (1 << 20)) == b""
        assert blocks.held <= MAX_EVENT + (1 << 20)
    assert blocks.feed(b"x\n") == b""
    assert blocks.feed(b"\ndata: after\n\n") == b"data: after\n\n"


def test_end_of_a_long_event_is_found_when_cut_inside_the_blank_line() -> None:
    blocks = EventBlocks()
    blocks.feed(b"x" * MAX_EVENT + b"x\n")
    assert blocks.feed(b"\ndata: after\n\n") == b"data: after\n\n"


BLOCK = b'data: {"a":1}\n\nevent: e\ndata: {"b":2}\n\ndata: {"a":3}\n\n'


def test_events_with_a_needle_come_in_order_and_last_first() -> None:
    first, last = b'data: {"a":1}', b'data: {"a":3}'
    assert list(events_with(BLOCK, b'"a"')) == [first, last]
    assert list(last_events_with(BLOCK, b'"a"', unless=())) == [last, first]
    assert list(events_with(BLOCK, b'"b"')) == [b'event: e\ndata: {"b":2}']
    assert (
        list(events_with(BLOCK, b'"c"')) == list(last_events_with(BLOCK, b'"c"', unless=())) == []
    )


def test_event_with_two_needles_comes_once() -> None:
    block = b'data: {"a":{"a":1}}\n\n'
    assert len(list(events_with(block, b'"a"'))) == 1
    assert len(list(last_events_with(block, b'"a"', unless=()))) == 1


def test_places_that_are_followed_by_what_is_unwanted_are_passed_over() -> None:
    assert list(last_events_with(BLOCK, b'"a"', unless=(b":3",))) == [b'data: {"a":1}']
    both = b'data: {"a":1,"x":{"a":3}}\n\n'
    assert list(last_events_with(both, b'"a"', unless=(b":3",))) == [both[:-2]]


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: 1", b" 1"),
        (b"event: e\ndata:1\nid: 7", b"1"),
        (b"data: {\ndata:  1}", b" {\n  1}"),
        (b"\n: note\ndata: 1", b" 1"),
        (b"event: e", b""),
    ],
)
def test_data_lines_are_joined(event: bytes, data: bytes) -> None:
    assert event_data(event) == data
