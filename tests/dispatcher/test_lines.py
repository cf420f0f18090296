from __future__ import annotations

import json

import msgspec
import pytest

from llm_proxy.dispatcher.lines import json_lines, line_of
from llm_proxy.dispatcher.metadata import NOTHING, Metadata
from llm_proxy.events.record import ExchangeRecord

METADATA = Metadata("gpt-4o", 9, 12, 21, 1677652288)


def test_line_has_the_documented_keys_in_order(record: ExchangeRecord) -> None:
    line = json_lines([line_of(record, METADATA, dropped=0)])
    assert line.endswith(b"}\n")
    assert json.loads(line) == {
        "timestamp": "2023-11-14T22:13:20.250000Z",
        "request_id": "request-1",
        "project_id": "project-1",
        "token_id": "token-1",
        "api": "openai",
        "endpoint": "/v1/chat/completions",
        "method": "POST",
        "status_code": 200,
        "duration_ms": 12.346,
        "upstream_ms": 11.234,
        "ttft_ms": 11.5,
        "stream": False,
        "request_bytes": 400,
        "response_bytes": 413,
        "truncated": False,
        "error_code": None,
        "client_ip": "127.0.0.1",
        "metadata": {
            "model": "gpt-4o",
            "prompt_tokens": 9,
            "completion_tokens": 12,
            "total_tokens": 21,
            "created": 1677652288,
        },
    }
    names = list(json.loads(line))
    assert names[0] == "timestamp" and names[-1] == "metadata"


def test_what_is_unknown_is_null(record: ExchangeRecord) -> None:
    empty = msgspec.structs.replace(
        record,
        project_id="",
        token_id="",
        api="",
        status_code=0,
        upstream_ms=0.0,
        ttft_ms=0.0,
        client_ip="",
    )
    line = json.loads(json_lines([line_of(empty, NOTHING, dropped=0)]))
    for name in ("project_id", "token_id", "api", "status_code", "upstream_ms", "ttft_ms"):
        assert line[name] is None
    assert set(line["metadata"].values()) == {None}


def test_lost_records_are_told_only_when_there_are_some(record: ExchangeRecord) -> None:
    lines = json_lines([line_of(record, NOTHING, dropped=n) for n in (0, 3)]).splitlines()
    assert "dropped" not in json.loads(lines[0])
    assert json.loads(lines[1])["dropped"] == 3


def test_no_text_can_break_a_line(record: ExchangeRecord) -> None:
    odd = 'a"\n\r\u2028\x00é'
    changed = msgspec.structs.replace(record, request_id=odd, endpoint=odd)
    (line,) = json_lines([line_of(changed, Metadata(model=odd), dropped=0)]).split(b"\n")[:-1]
    assert json.loads(line)["endpoint"] == json.loads(line)["metadata"]["model"] == odd


@pytest.mark.parametrize("timestamp", [float("nan"), float("inf"), 1e18])
def test_time_that_no_clock_shows_is_an_error(record: ExchangeRecord, timestamp: float) -> None:
    with pytest.raises((ValueError, OverflowError, OSError)):
        line_of(msgspec.structs.replace(record, timestamp=timestamp), NOTHING, dropped=0)
