from __future__ import annotations

import csv
import io
from typing import Any

from llm_proxy.benchmark import samples as s
from llm_proxy.benchmark.csv_samples import CsvSamples
from llm_proxy.benchmark.sample_columns import COLUMNS
from tests.benchmark.sample_rows import frame_of


def _lines(*frames: s.Frame) -> list[dict[str, Any]]:
    file = io.BytesIO()
    written = CsvSamples(file)
    for frame in frames:
        written.add(frame, 2)
    return list(csv.DictReader(io.StringIO(file.getvalue().decode(), newline="")))


def test_a_request_is_a_line_with_all_columns() -> None:
    (line,) = _lines(frame_of({}, process=3))
    assert list(line) == [column.name for column in COLUMNS]
    assert (line["run"], line["process"], line["latency_ms"]) == ("2", "3", "5.3345")
    assert line["ttft_ms"] == ""


def test_the_head_is_there_before_any_request() -> None:
    file = io.BytesIO()
    CsvSamples(file).add(frame_of(), 0)
    assert file.getvalue() == (",".join(column.name for column in COLUMNS) + "\r\n").encode()


def test_frames_follow_each_other() -> None:
    failed = {"outcome": s.SERVER_ERROR, "status": 502}
    lines = _lines(frame_of({}, failed), frame_of({}, process=1))
    assert [(line["process"], line["outcome"]) for line in lines] == [
        ("0", "ok"),
        ("0", "5xx"),
        ("1", "ok"),
    ]
