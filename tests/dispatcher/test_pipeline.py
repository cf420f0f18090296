from __future__ import annotations

import json
import logging
from typing import Any

import msgspec
import pytest

from llm_proxy.dispatcher.frames import FrameError
from llm_proxy.dispatcher.pipeline import Pipeline
from llm_proxy.events.record import ExchangeRecord, Part


class FakeSink:
    def __init__(self) -> None:
        self.blobs: list[bytes] = []
        self.dropped = 0

    def write(self, lines: bytes) -> None:
        self.blobs.append(lines)

    def take_dropped(self) -> int:
        dropped, self.dropped = self.dropped, 0
        return dropped

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in b"".join(self.blobs).splitlines()]


def frame(*items: object) -> bytes:
    return msgspec.msgpack.encode(items)


def test_frame_becomes_one_write_with_a_line_a_record(record: ExchangeRecord) -> None:
    sink = FakeSink()
    pipeline = Pipeline(sink)
    pipeline.take(1, frame(record, msgspec.structs.replace(record, request_id="request-2")))
    assert len(sink.blobs) == 1
    assert [line["request_id"] for line in sink.lines] == ["request-1", "request-2"]
    assert sink.lines[0]["metadata"]["total_tokens"] == 21
    assert pipeline.records == 2


def test_metadata_comes_from_the_parts_of_earlier_frames(record: ExchangeRecord) -> None:
    sink = FakeSink()
    pipeline = Pipeline(sink)
    head = Part(exchange=3, content_encoding="", stream=False, body=record.body[:20])
    pipeline.take(1, frame(head))
    assert sink.blobs == []
    pipeline.take(1, frame(msgspec.structs.replace(record, exchange=3, body=record.body[20:])))
    assert sink.lines[0]["metadata"]["model"] == "gpt-4o"


def test_parts_of_a_closed_connection_are_forgotten(record: ExchangeRecord) -> None:
    sink = FakeSink()
    pipeline = Pipeline(sink)
    pipeline.take(1, frame(Part(exchange=3, content_encoding="", stream=False, body=b"{")))
    pipeline.disconnect(1)
    pipeline.take(1, frame(msgspec.structs.replace(record, exchange=3)))
    assert sink.lines[0]["metadata"]["model"] == "gpt-4o"


def test_dropped_bodies_are_counted() -> None:
    pipeline = Pipeline(FakeSink())
    for exchange in range(1, 20):
        body = b" " * (4 << 20)
        part = Part(exchange=exchange, content_encoding="", stream=False, body=body)
        pipeline.take(1, frame(part))
    assert pipeline.bodies_dropped == 19 - 15  # 64 MiB, and each costs a little more than 4


def test_losses_of_worker_and_sink_are_told_by_the_next_line(record: ExchangeRecord) -> None:
    sink = FakeSink()
    sink.dropped = 5
    Pipeline(sink).take(1, frame(msgspec.structs.replace(record, dropped=2), record))
    assert sink.lines[0]["dropped"] == 7
    assert "dropped" not in sink.lines[1]


def test_unreadable_records_are_counted_told_and_logged_once(
    record: ExchangeRecord, caplog: pytest.LogCaptureFixture
) -> None:
    sink = FakeSink()
    pipeline = Pipeline(sink)
    timeless = msgspec.structs.replace(record, timestamp=float("nan"), dropped=4)
    with caplog.at_level(logging.ERROR):
        pipeline.take(1, frame([1, "other layout"], timeless, record))
        pipeline.take(1, frame(timeless))
    assert [line.get("dropped") for line in sink.lines] == [6]
    assert pipeline.unreadable == 3
    assert len(caplog.records) == 1


def test_frame_that_can_not_be_understood_is_an_error() -> None:
    with pytest.raises(FrameError):
        Pipeline(FakeSink()).take(1, b"\xc1")
