"""Columns that stand in line."""

from __future__ import annotations

from rich.text import Text

from llm_proxy.benchmark.text_table import Cell, table_lines
from tests.benchmark.printed import make_console


def _lines(rows: list[list[Cell]], aligns: str, width: int = 40) -> list[str]:
    lines = table_lines(rows, aligns=aligns, width=width, console=make_console())
    return [line.plain for line in lines]


def test_columns_are_aligned_as_asked() -> None:
    rows: list[list[Cell]] = [["a", "1"], ["long", "1,000"]]
    assert _lines(rows, "lr") == ["a         1", "long  1,000"]


def test_lines_end_where_their_text_does() -> None:
    assert _lines([["a", "b"], ["a", "long"]], "ll") == ["a  b", "a  long"]


def test_wide_letters_take_two_columns() -> None:
    assert _lines([["日本", "1"], ["a", "1"]], "ll") == ["日本  1", "a     1"]


def test_columns_move_together_where_they_would_not_fit() -> None:
    assert _lines([["aaa", "bbb", "ccc"]], "lll", width=12) == ["aaa bbb ccc"]


def test_the_last_column_is_wrapped_under_itself() -> None:
    rows: list[list[Cell]] = [["one", "some words that are too many"], ["two", ""]]
    assert _lines(rows, "lw", width=24) == ["one  some words that are", "     too many", "two"]


def test_styles_stay_with_their_cells() -> None:
    [line] = table_lines(
        [["a", Text("b", style="red")]], aligns="lr", width=40, console=make_console()
    )
    assert [(span.start, span.end, str(span.style)) for span in line.spans] == [(3, 4, "red")]


def test_no_rows_are_no_lines() -> None:
    assert _lines([], "lr") == []
