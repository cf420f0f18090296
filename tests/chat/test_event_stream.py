from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.chat.event_stream import LONGEST_EVENT, EventStream, EventTooLong


def _events(*pieces: bytes) -> list[bytes]:
    stream = EventStream()
    return [data for piece in pieces for data in stream.feed(piece)] + list(stream.finish())


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_end_in_any_way_that_the_standard_knows(end: bytes) -> None:
    lines = [b"event: x", b"data: one", b"", b": comment", b"data:two", b"data: three", b"", b""]
    assert _events(end.join(lines)) == [b"one", b"two\nthree"]


@given(st.lists(st.integers(0, 60)), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_cuts_change_nothing(cuts: list[int], end: bytes) -> None:
    whole = end.join([b"\xef\xbb\xbfdata: {", b"data: }", b"", b"id: 7", b"data:  b", b"", b": c"])
    bounds = [0, *sorted(cuts), len(whole)]
    pieces = [whole[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
    assert _events(*pieces) == [b"{\n}", b" b"]


def test_event_is_handed_over_before_the_lf_behind_its_cr() -> None:
    stream = EventStream()
    assert list(stream.feed(b"data: a\r\n\r")) == [b"a"]
    assert list(stream.feed(b"\ndata: b\r\n\r\n")) == [b"b"]


def test_last_event_needs_no_blank_line() -> None:
    assert _events(b"data: a\n\ndata: b") == [b"a", b"b"]


def test_events_without_data_are_none() -> None:
    assert _events(b"event: ping\n\n:\n\n\n\n") == []


def test_event_without_an_end_is_refused() -> None:
    stream = EventStream()
    with pytest.raises(EventTooLong):
        list(stream.feed(b"data: " + b"x" * LONGEST_EVENT))
