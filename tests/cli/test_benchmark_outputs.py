from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import pytest

from llm_proxy.benchmark.hdr_histogram import HdrHistogram
from llm_proxy.benchmark.samples import Frame, new_gaps, new_samples
from llm_proxy.cli.benchmark_options import Given
from llm_proxy.cli.benchmark_outputs import Outputs
from llm_proxy.errors import ConfigError, LLMProxyError
from tests.benchmark.reports import make_report

FULL = Path("/dev/full")


def given(folder: Path) -> Given:
    return Given(
        csv=folder / "a.csv",
        jsonl=folder / "a.jsonl",
        html=folder / "a.html",
        hdr=folder / "a.hdr",
        junit=folder / "a.xml",
    )


def frame() -> Frame:
    samples = new_samples()
    for name in samples.__struct_fields__:
        getattr(samples, name).append(0)
    return Frame(process=0, at=0, in_flight=0, samples=samples, gaps=new_gaps())


def histograms() -> dict[str, HdrHistogram]:
    histogram = HdrHistogram()
    histogram.record(5000, 3)
    return {"proxied.latency": histogram, "proxied.service": histogram}


def test_every_file_that_is_asked_for_is_written(tmp_path: Path) -> None:
    outputs = Outputs(given(tmp_path))
    take = outputs.begin()
    assert take is not None
    take(frame(), 0)
    outputs.write(make_report(), histograms())
    outputs.check()
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 2
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 1
    assert "<svg" in (tmp_path / "a.html").read_text()
    assert "proxied.latency" in (tmp_path / "a.hdr").read_text()
    assert ElementTree.parse(tmp_path / "a.xml").getroot().tag == "testsuites"


def test_nothing_is_written_unless_asked_for(tmp_path: Path) -> None:
    outputs = Outputs(Given())
    assert outputs.begin() is None
    outputs.write(make_report(), histograms())
    assert list(tmp_path.iterdir()) == []


def test_file_that_cannot_be_written_is_refused_before_the_run(tmp_path: Path) -> None:
    wrong = Given(csv=tmp_path / "a.csv", html=tmp_path / "no" / "a.html")
    with pytest.raises(ConfigError, match=r"--html: .*a.html can't be written \(No such file"):
        Outputs(wrong)
    assert list(tmp_path.iterdir()) == []  # nor is the other one left behind


def test_name_that_no_file_can_have_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--csv: .* can't be written \(File name too long\)"):
        Outputs(Given(csv=tmp_path / ("a" * 5000)))


def test_who_reads_a_pipe_gets_all_of_it(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as threads:
        read = threads.submit(pipe.read_bytes)
        outputs = Outputs(Given(jsonl=pipe))
        take = outputs.begin()
        assert take is not None
        take(frame(), 0)
        outputs.close()
        assert read.result(10).count(b"\n") == 1


def test_run_that_fails_leaves_no_empty_files(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("of yesterday")
    outputs = Outputs(given(tmp_path))
    assert outputs.begin() is not None
    outputs.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]
    assert (tmp_path / "a.html").read_text() == "of yesterday"


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a disk that is always full")
def test_full_disk_is_said_after_the_other_files_were_written(tmp_path: Path) -> None:
    outputs = Outputs(Given(html=FULL, junit=tmp_path / "a.xml"))
    outputs.write(make_report(), histograms())
    with pytest.raises(LLMProxyError, match="--html couldn't be written: No space left"):
        outputs.check()
    assert (tmp_path / "a.xml").read_text()


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a disk that is always full")
def test_full_disk_ends_the_lines_and_neither_the_run_nor_others(tmp_path: Path) -> None:
    outputs = Outputs(Given(csv=FULL, jsonl=tmp_path / "a.jsonl"))
    take = outputs.begin()
    assert take is not None
    for _ in range(2000):  # more than a buffer holds
        take(frame(), 0)
    outputs.write(make_report(), histograms())
    with pytest.raises(LLMProxyError, match="--csv couldn't be written: No space left"):
        outputs.check()
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 2000
