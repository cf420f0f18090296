from __future__ import annotations

import csv
import io
from array import array
from pathlib import Path
from typing import Any

from llm_proxy.benchmark import samples as s
from llm_proxy.benchmark.csv_samples import COLUMNS, CsvSamples
from llm_proxy.benchmark.plan import DIRECT

_ROW: dict[str, int] = {
    "lane": 0,
    "outcome": s.OK,
    "status": 200,
    "due": 15_000_000,
    "late": 1_000,
    "service": 52_345,
    "first_byte": 40_000,
    "first_token": -1,
    "second_token": -1,
    "last_token": -1,
    "tokens": 0,
    "stalls": -1,
    "gap": -1,
    "received": 890,
    "sent": 412,
    "proxy": 1_100,
    "upstream": 30_000,
    "pair": 7,
    "body": 0,
    "digest": 1,
}


def _frame(*rows: dict[str, int], process: int = 0) -> s.Frame:
    samples = s.new_samples()
    for row in rows:
        for name, value in (_ROW | row).items():
            column: array[int] = getattr(samples, name)
            column.append(value)
    return s.Frame(process=process, at=0, in_flight=0, samples=samples, gaps=s.new_gaps())


def _lines(*frames: s.Frame) -> list[dict[str, Any]]:
    file = io.BytesIO()
    written = CsvSamples(file)
    for frame in frames:
        written.add(frame, 2)
    return list(csv.DictReader(io.StringIO(file.getvalue().decode(), newline="")))


def test_a_request_is_a_line_of_what_was_measured() -> None:
    (line,) = _lines(_frame({}, process=3))
    assert line == {
        "run": "2",
        "started_s": "1.500000",
        "target": "proxied",
        "process": "3",
        "outcome": "ok",
        "status": "200",
        "latency_ms": "5.3345",
        "service_ms": "5.2345",
        "late_ms": "0.1000",
        "first_byte_ms": "4.0000",
        "ttft_ms": "",
        "second_token_ms": "",
        "tokens": "",
        "received_bytes": "890",
        "proxy_ms": "0.1100",
        "upstream_ms": "3.0000",
        "body": "0",
        "pair": "7",
    }


def test_a_stream_has_its_tokens() -> None:
    stream = {"lane": DIRECT, "first_token": 200_000, "second_token": 300_000, "tokens": 30}
    (line,) = _lines(_frame(stream))
    assert (line["target"], line["ttft_ms"]) == ("direct", "20.0000")
    assert (line["second_token_ms"], line["tokens"]) == ("30.0000", "30")


def test_a_request_without_an_answer_has_no_status() -> None:
    (line,) = _lines(_frame({"outcome": s.CONNECT, "status": 0, "pair": -1, "first_byte": -1}))
    assert (line["outcome"], line["status"], line["pair"]) == ("connect", "", "")
    assert line["first_byte_ms"] == ""


def test_a_request_that_was_never_sent_has_no_times() -> None:
    (line,) = _lines(_frame({"outcome": s.UNSENT, "status": 0, "service": -1}))
    assert (line["latency_ms"], line["service_ms"]) == ("", "")
    assert line["started_s"] == "1.500000"


def test_the_head_is_there_before_any_request() -> None:
    file = io.BytesIO()
    CsvSamples(file).add(_frame(), 0)
    assert file.getvalue() == (",".join(COLUMNS) + "\r\n").encode()


def test_frames_follow_each_other() -> None:
    lines = _lines(_frame({}, {"outcome": s.SERVER_ERROR, "status": 502}), _frame({}, process=1))
    assert [(line["process"], line["outcome"]) for line in lines] == [
        ("0", "ok"),
        ("0", "5xx"),
        ("1", "ok"),
    ]


def test_every_column_is_documented() -> None:
    document = Path(__file__).parents[2] / "docs" / "benchmark-report.md"
    section = document.read_text("utf-8").split("\n## CSV\n")[1].split("\n## ")[0]
    documented = [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]
    assert documented == list(COLUMNS)
