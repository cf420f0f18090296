from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.quantities import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("24h", 86400),
        ("7d", 604800),
        ("250ms", 0.25),
        ("1h30m", 5400),
        (" 1.5s ", 1.5),
        ("0s", 0),
        ("1m500ms", 60.5),
    ],
)
def test_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "30", "s", "-5s", "5 s", "1e3s", "nan", "inf", "5y", "٣s"])
def test_what_is_no_duration_is_refused_with_the_value(text: str) -> None:
    with pytest.raises(ValueError, match="isn't a duration; write it like") as refused:
        parse_duration(text)
    assert repr(text.strip()) in str(refused.value)


def test_number_without_unit_counts_in_the_unit_of_the_caller() -> None:
    assert parse_duration("90", bare_unit="m") == 5400
    assert parse_duration("0.5", bare_unit="s") == 0.5
    assert parse_duration("90s", bare_unit="m") == 90


def test_duration_beyond_reason_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than 100 years"):
        parse_duration("9" * 30 + "d")
    with pytest.raises(ValueError, match="longer than 100 years"):
        parse_duration("9" * 400 + "d")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("512B", 512),
        ("512KiB", 524288),
        ("10MB", 10 * 2**20),
        ("10mb", 10 * 2**20),
        ("10 M", 10 * 2**20),
        ("1GB", 2**30),
        ("1.5K", 1536),
    ],
)
def test_size_is_read_in_bytes_with_kilo_as_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "10XB", "ten", "1e9", "0x10", "10MBs"])
def test_what_is_no_size_is_refused_with_the_value(text: str) -> None:
    with pytest.raises(ValueError, match="isn't a size; write it like") as refused:
        parse_size(text)
    assert repr(text) in str(refused.value)


def test_size_beyond_reason_or_in_parts_of_a_byte_is_refused() -> None:
    with pytest.raises(ValueError, match="larger than any machine's memory"):
        parse_size("9" * 400 + "TB")
    with pytest.raises(ValueError, match="whole number of bytes"):
        parse_size("0.3B")


def test_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(ValueError, match="…") as refused:
        parse_size("x" * 10_000)
    assert len(str(refused.value)) < 150


@given(st.integers(min_value=0, max_value=10**12))
def test_formatted_duration_reads_back(milliseconds: int) -> None:
    text = format_duration(milliseconds / 1000)
    assert round(parse_duration(text) * 1000) == milliseconds


@given(st.integers(min_value=0, max_value=2**50))
def test_formatted_size_reads_back(size: int) -> None:
    assert parse_size(format_size(size)) == size


def test_formats_are_the_short_ones() -> None:
    assert [format_duration(s) for s in (0, 0.25, 90, 86400, 5400)] == [
        "0s",
        "250ms",
        "1m30s",
        "1d",
        "1h30m",
    ]
    assert [format_size(s) for s in (0, 1000, 2**20 * 100)] == ["0B", "1000B", "100MB"]


@given(st.text(max_size=30))
def test_any_text_is_either_read_or_refused(text: str) -> None:
    for parse in (parse_duration, parse_size):
        try:
            assert parse(text) >= 0
        except ValueError as refused:
            assert str(refused)
