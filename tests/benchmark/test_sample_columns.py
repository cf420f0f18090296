from __future__ import annotations

from pathlib import Path

from llm_proxy.benchmark import samples as s
from llm_proxy.benchmark.plan import DIRECT
from llm_proxy.benchmark.sample_columns import COLUMNS
from tests.benchmark.sample_rows import STREAM, frame_of


def _values(frame: s.Frame, run: int = 2) -> dict[str, list[str]]:
    return {column.name: column.values(frame, run) for column in COLUMNS}


def _one(**row: int) -> dict[str, str]:
    return {name: value for name, (value,) in _values(frame_of(row)).items() if value}


def test_a_request_has_what_was_measured() -> None:
    assert _one() == {
        "run": "2",
        "started_s": "1.500000",
        "target": "proxied",
        "process": "0",
        "outcome": "ok",
        "status": "200",
        "latency_ms": "5.3345",
        "service_ms": "5.2345",
        "late_ms": "0.1000",
        "first_byte_ms": "4.0000",
        "received_bytes": "890",
        "proxy_ms": "0.1100",
        "upstream_ms": "3.0000",
        "body": "0",
        "pair": "7",
        "sent_bytes": "412",
    }


def test_a_stream_has_its_tokens() -> None:
    stream = _one(lane=DIRECT, **STREAM)
    assert (stream["target"], stream["ttft_ms"]) == ("direct", "20.0000")
    assert (stream["second_token_ms"], stream["tokens"]) == ("30.0000", "30")
    assert (stream["gap_ms"], stream["stalls"]) == ("9.0500", "2")


def test_a_stream_without_stalls_says_so() -> None:
    assert _one(**STREAM | {"stalls": 0})["stalls"] == "0"


def test_a_request_without_an_answer_has_no_status() -> None:
    failed = _one(outcome=s.CONNECT, status=0, pair=-1, first_byte=-1)
    assert failed["outcome"] == "connect"
    assert not {"status", "pair", "first_byte_ms"} & failed.keys()


def test_a_request_that_was_never_sent_has_no_times() -> None:
    unsent = _one(outcome=s.UNSENT, status=0, service=-1)
    assert not {"latency_ms", "service_ms"} & unsent.keys()
    assert unsent["started_s"] == "1.500000"


def test_every_column_has_a_value_for_each_request() -> None:
    values = _values(frame_of({}, STREAM, {"outcome": s.SERVER_ERROR}, process=3))
    assert {name for name, column in values.items() if len(column) != 3} == set()
    assert values["process"] == ["3"] * 3


def test_every_column_is_documented() -> None:
    document = Path(__file__).parents[2] / "docs" / "benchmark-report.md"
    section = document.read_text("utf-8").split("\n## CSV and JSONL\n")[1].split("\n## ")[0]
    documented = [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]
    assert documented == [column.name for column in COLUMNS]
