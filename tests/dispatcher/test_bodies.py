from __future__ import annotations

import gzip
import logging

import brotli
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.dispatcher.bodies import BodyReader, OpenBodies
from llm_proxy.dispatcher.metadata import NOTHING, Metadata
from llm_proxy.events.record import ExchangeRecord, Part

JSON = b'{"model":"m","usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}'
FOUND = Metadata("m", 1, 2, 3, None)
EVENT = b"data: " + JSON + b"\n\n"


def part(exchange: int, body: bytes, encoding: str = "", *, stream: bool = False) -> Part:
    return Part(exchange=exchange, content_encoding=encoding, stream=stream, body=body)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("encoding", ["", "gzip", "br", "gzip, br"])
@given(at=st.lists(st.integers(0, 200), max_size=4))
def test_any_cutting_of_a_coded_body_gives_the_same(
    stream: bool, encoding: str, at: list[int]
) -> None:
    body = EVENT if stream else JSON
    if "gzip" in encoding:
        body = gzip.compress(body)
    if "br" in encoding:
        body = brotli.compress(body)
    reader = BodyReader(content_encoding=encoding, stream=stream)
    marks = [0, *sorted(mark % (len(body) + 1) for mark in at), len(body)]
    for start, end in zip(marks, marks[1:], strict=False):
        reader.feed(body[start:end])
    assert reader.finish() == FOUND


def test_record_without_parts_has_its_whole_body(record: ExchangeRecord) -> None:
    bodies = OpenBodies()
    for encoding, stream, body in [
        ("", False, JSON),
        ("", True, EVENT),
        ("gzip", False, gzip.compress(JSON)),
    ]:
        whole = msgspec.structs.replace(record, body=body, content_encoding=encoding, stream=stream)
        assert bodies.finish(1, whole) == FOUND
    assert bodies.finish(1, msgspec.structs.replace(record, body=b"")) == NOTHING


def test_parts_come_before_the_body_of_their_record(record: ExchangeRecord) -> None:
    bodies = OpenBodies()
    bodies.add(1, part(7, JSON[:10]))
    bodies.add(1, part(8, b"of another exchange"))
    bodies.add(2, part(7, b"of another connection"))
    bodies.add(1, part(7, JSON[10:20]))
    last = msgspec.structs.replace(record, exchange=7, body=JSON[20:])
    assert bodies.finish(1, last) == FOUND
    assert len(bodies) == 2


def test_closed_connection_takes_its_unfinished_exchanges_along(record: ExchangeRecord) -> None:
    bodies = OpenBodies()
    bodies.add(1, part(1, JSON[:10]))
    bodies.add(2, part(1, JSON[:10]))
    bodies.close(1)
    assert len(bodies) == 1
    last = msgspec.structs.replace(record, exchange=1, body=JSON[10:])
    assert bodies.finish(1, last) == NOTHING
    assert bodies.finish(2, last) == FOUND


def test_oldest_makes_room_is_counted_and_logged_once(
    record: ExchangeRecord, caplog: pytest.LogCaptureFixture
) -> None:
    bodies = OpenBodies(max_bytes=1 << 20)
    with caplog.at_level(logging.WARNING):
        for exchange in range(1, 6):
            bodies.add(1, part(exchange, JSON[:-1] + b" " * 300_000))
    assert (len(bodies), bodies.dropped) == (3, 2)
    assert len(caplog.records) == 1
    last = msgspec.structs.replace(record, body=b"}")
    kept = [bodies.finish(1, msgspec.structs.replace(last, exchange=n)) for n in range(1, 6)]
    assert kept == [NOTHING, NOTHING, FOUND, FOUND, FOUND]


def test_room_is_given_back_when_exchanges_finish(record: ExchangeRecord) -> None:
    bodies = OpenBodies(max_bytes=1 << 20)
    for exchange in range(1, 50):
        bodies.add(1, part(exchange, b" " * 500_000))
        bodies.finish(1, msgspec.structs.replace(record, exchange=exchange, body=JSON))
        bodies.add(2, part(exchange, b" " * 500_000, "gzip"))
        bodies.close(2)
    assert bodies.dropped == 0


def test_one_exchange_larger_than_all_the_room_is_dropped() -> None:
    bodies = OpenBodies(max_bytes=1 << 20)
    bodies.add(1, part(1, b" " * (2 << 20)))
    assert (len(bodies), bodies.dropped) == (0, 1)


def test_end_of_a_dropped_stream_still_has_the_usage(record: ExchangeRecord) -> None:
    last = msgspec.structs.replace(record, exchange=9, stream=True, body=b"half}\n\n" + EVENT)
    assert OpenBodies().finish(1, last) == FOUND


def test_stream_holds_little_however_long(record: ExchangeRecord) -> None:
    bodies = OpenBodies(max_bytes=1 << 20)
    for _ in range(100):
        bodies.add(1, part(1, EVENT * 1_000, stream=True))
    assert bodies.dropped == 0
    last = msgspec.structs.replace(record, exchange=1, stream=True, body=b"data: [DONE]\n\n")
    assert bodies.finish(1, last) == FOUND
