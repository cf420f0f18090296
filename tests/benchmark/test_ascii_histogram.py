"""Histograms as lines of text."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.benchmark.ascii_histogram import MOST_ROWS, histogram_lines
from llm_proxy.benchmark.report import Histogram


def _histogram(*counts: int, first: float = 1.0, ratio: float = 2.0) -> Histogram:
    edges = tuple(first * ratio**i for i in range(len(counts) + 1))
    return Histogram(edges_ms=edges, counts=counts)


def _counts(lines: list[tuple[str, str]]) -> list[int]:
    return [int(text.split()[-1].replace(",", "")) for text, _bar in lines]


def test_a_line_tells_edges_and_count_and_the_longest_bar_fills_the_width() -> None:
    lines = histogram_lines(_histogram(5, 10), 40)
    assert [text for text, _ in lines] == ["1.00 ms – 2.00 ms   5  ", "2.00 ms – 4.00 ms  10  "]
    short, full = (len(bar) for _, bar in lines)
    assert len(lines[1][0]) + full <= 40
    assert math.isclose(short * 2, full, abs_tol=1)


def test_a_terminal_without_blocks_gets_letters() -> None:
    [(text, bar)] = histogram_lines(_histogram(3), 40, has_blocks=False)
    assert text.isascii()
    assert set(bar) == {"#"}


def test_what_is_rare_still_shows_and_what_is_not_there_does_not() -> None:
    for has_blocks in (True, False):
        lines = histogram_lines(_histogram(1, 0, 1_000_000), 60, has_blocks=has_blocks)
        assert [bool(bar) for _, bar in lines] == [True, False, True]


def test_empty_ends_are_left_out() -> None:
    assert _counts(histogram_lines(_histogram(0, 0, 3, 0, 4, 0), 60)) == [3, 0, 4]


def test_nothing_measured_is_no_line() -> None:
    assert histogram_lines(_histogram(0, 0), 60) == []
    assert histogram_lines(Histogram(edges_ms=(), counts=()), 60) == []


def test_bins_that_would_read_alike_are_joined() -> None:
    lines = histogram_lines(_histogram(1, 1, 1, 1, 1, 1, first=50.0, ratio=1.0004), 60)
    labels = [text.split(" – ")[0] for text, _ in lines]
    assert len(set(labels)) == len(labels)
    assert sum(_counts(lines)) == 6


@given(st.lists(st.integers(0, 10**6), max_size=60), st.integers(20, 120), st.booleans())
def test_no_request_is_lost_and_rows_are_few(
    counts: list[int], width: int, has_blocks: bool
) -> None:
    lines = histogram_lines(_histogram(*counts, ratio=1.2), width, has_blocks=has_blocks)
    if lines:
        assert sum(_counts(lines)) == sum(counts)
    else:
        assert sum(counts) == 0
    assert len(lines) <= MOST_ROWS
