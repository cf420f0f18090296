from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.dispatcher.frames import FrameError, FrameReader, items_of
from llm_proxy.events.record import FRAME_HEAD, MAX_FRAME, ExchangeRecord, Part

PART = Part(exchange=1, content_encoding="", stream=False, body=b"{}")


def framed(payload: bytes) -> bytes:
    return FRAME_HEAD.pack(len(payload)) + payload


@given(st.lists(st.binary(max_size=50), max_size=5), st.lists(st.integers(0, 300), max_size=5))
def test_frames_are_the_same_however_they_are_cut(payloads: list[bytes], at: list[int]) -> None:
    data = b"".join(map(framed, payloads))
    marks = [0, *sorted(mark % (len(data) + 1) for mark in at), len(data)]
    reader = FrameReader()
    frames: list[bytes] = []
    for start, end in zip(marks, marks[1:], strict=False):
        frames += reader.feed(data[start:end])
    assert frames == payloads


def test_torn_frame_is_never_put_out() -> None:
    assert FrameReader().feed(framed(b"whole") + framed(b"torn")[:-1]) == [b"whole"]


def test_frame_larger_than_a_recorder_sends_is_refused() -> None:
    with pytest.raises(FrameError, match="is announced"):
        FrameReader().feed(FRAME_HEAD.pack(MAX_FRAME + 1))


def test_parts_and_records_come_in_order(record: ExchangeRecord) -> None:
    assert items_of(msgspec.msgpack.encode([PART, record])) == ([PART, record], 0)


def test_item_of_another_layout_costs_only_itself(record: ExchangeRecord) -> None:
    other = [1, "not a number"]
    assert items_of(msgspec.msgpack.encode([PART, other, record])) == ([PART, record], 1)


@pytest.mark.parametrize("frame", [b"", b"\xc1", b"\x93\x01", msgspec.msgpack.encode({"a": 1})])
def test_what_is_not_a_list_of_items_is_an_error(frame: bytes) -> None:
    with pytest.raises(FrameError):
        items_of(frame)


@given(st.binary(max_size=200))
def test_garbage_is_an_error_or_unreadable(data: bytes) -> None:
    try:
        items, _ = items_of(data)
    except FrameError:
        return
    assert items == []
