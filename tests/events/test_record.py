from __future__ import annotations

import typing

import msgspec

from llm_proxy.events.record import (
    FRAME_HEAD,
    PART,
    RECORD,
    ExchangeRecord,
    Part,
    PartFields,
    RecordFields,
)

FIELDS: RecordFields = (
    RECORD, 7, 1700000000.25, "req", "prj", "tok", "openai", "/v1/embeddings", "POST", 200,
    12.5, 11.5, 11.75, False, 400, 413, True, "upstream_broken", "127.0.0.1", "gzip", b"{}",
)  # fmt: skip


def decoded(item: object) -> Part | ExchangeRecord:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(item), type=Part | ExchangeRecord)


def test_tuple_of_fields_is_read_as_the_record() -> None:
    record = decoded(FIELDS)
    assert isinstance(record, ExchangeRecord)
    assert msgspec.structs.astuple(record) == (*FIELDS[1:], 0)


def test_dropped_count_may_follow_the_fields() -> None:
    record = decoded((*FIELDS, 12))
    assert isinstance(record, ExchangeRecord)
    assert (record.dropped, record.body) == (12, b"{}")


def test_tuple_has_a_type_for_every_field() -> None:
    types = typing.get_type_hints(ExchangeRecord)
    names = ExchangeRecord.__struct_fields__[:-1]
    assert list(typing.get_args(RecordFields)[1:]) == [types[name] for name in names]


def test_tuple_of_a_part_is_read_as_the_part() -> None:
    fields: PartFields = (PART, 7, "br", True, b"data: ")
    assert decoded(fields) == Part(exchange=7, content_encoding="br", stream=True, body=b"data: ")


def test_frame_head_is_four_bytes_little_endian() -> None:
    assert FRAME_HEAD.pack(258) == b"\x02\x01\x00\x00"
