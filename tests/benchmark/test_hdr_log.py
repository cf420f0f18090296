from __future__ import annotations

from pathlib import Path

import pytest
from hdrh.histogram import HdrHistogram as Theirs
from hdrh.log import HistogramLogReader

from llm_proxy.benchmark.hdr_histogram import HIGHEST, HdrHistogram
from llm_proxy.benchmark.hdr_log import hdr_log
from tests.benchmark.reports import make_report


def _histogram(*values: int) -> HdrHistogram:
    histogram = HdrHistogram()
    for value in values:
        histogram.record(value)
    return histogram


def test_the_library_reads_each_histogram_under_its_tag(tmp_path: Path) -> None:
    histograms = {
        "proxied.latency": _histogram(*range(1000, 90_000, 7), 5_000_000),
        "direct.service": _histogram(10, 20, 30),
    }
    path = tmp_path / "run.hdr"
    path.write_bytes(hdr_log(histograms, make_report()))
    reader = HistogramLogReader(str(path), Theirs(1, HIGHEST, 3))
    for tag, ours in histograms.items():
        theirs = reader.get_next_interval_histogram()
        assert theirs is not None
        assert theirs.get_tag() == tag
        assert theirs.get_total_count() == ours.count
        for percentile in (50, 90, 99, 99.9, 100):
            expected = ours.value_at_percentile(percentile)
            assert theirs.get_value_at_percentile(percentile) == pytest.approx(expected, rel=0.002)
        length = theirs.get_end_time_stamp() - theirs.get_start_time_stamp()
        assert length == pytest.approx(10_000)
    assert reader.get_next_interval_histogram() is None
    assert reader.get_start_time_sec() == 1772366400.0
    reader.close()


def test_the_most_is_in_milliseconds() -> None:
    log = hdr_log({"proxied.latency": _histogram(123_456)}, make_report()).decode()
    assert "Tag=proxied.latency,0.000,10.000,12.346,HIST" in log


def test_an_empty_histogram_has_no_line() -> None:
    assert b"Tag=" not in hdr_log({"direct.latency": HdrHistogram()}, make_report())


def test_a_command_of_several_lines_stays_a_comment() -> None:
    log = hdr_log({}, make_report(command="llm-proxy\n--data '\n0,1,2,HISTF'")).decode()
    assert "# llm-proxy --data ' 0,1,2,HISTF'\n" in log
    assert all(line.startswith(("#", '"Start')) for line in log.splitlines())
