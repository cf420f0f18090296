from __future__ import annotations

import io
import json
from typing import Any

from llm_proxy.benchmark import samples as s
from llm_proxy.benchmark.jsonl_samples import JsonlSamples
from llm_proxy.benchmark.sample_columns import COLUMNS
from tests.benchmark.sample_rows import STREAM, frame_of


def _objects(*frames: s.Frame) -> list[dict[str, Any]]:
    file = io.BytesIO()
    written = JsonlSamples(file)
    for frame in frames:
        written.add(frame, 2)
    return [json.loads(line) for line in file.getvalue().splitlines()]


def test_a_request_is_an_object_of_numbers_and_texts() -> None:
    (request,) = _objects(frame_of({}, process=3))
    assert (request["run"], request["process"], request["status"]) == (2, 3, 200)
    assert (request["target"], request["outcome"]) == ("proxied", "ok")
    assert (request["started_s"], request["latency_ms"]) == (1.5, 5.3345)
    assert (request["sent_bytes"], request["received_bytes"]) == (412, 890)


def test_what_was_not_measured_is_left_out() -> None:
    (request,) = _objects(frame_of({"outcome": s.CONNECT, "status": 0, "pair": -1, "body": 0}))
    assert request["outcome"] == "connect"
    assert request["body"] == 0
    assert not {"status", "pair", "ttft_ms", "tokens", "stalls", "gap_ms"} & request.keys()


def test_a_stream_has_all_of_it() -> None:
    (request,) = _objects(frame_of(STREAM))
    assert list(request) == [column.name for column in COLUMNS]
    assert (request["ttft_ms"], request["gap_ms"], request["stalls"]) == (20.0, 9.05, 2)


def test_every_outcome_is_a_text_that_needs_no_escape() -> None:
    rows = [{"outcome": outcome} for outcome in range(len(s.OUTCOMES))]
    assert [one["outcome"] for one in _objects(frame_of(*rows))] == list(s.OUTCOMES)


def test_frames_follow_each_other_and_empty_ones_leave_nothing() -> None:
    frames = (frame_of(), frame_of({}, {}), frame_of({}, process=1))
    assert [one["process"] for one in _objects(*frames)] == [0, 0, 1]
