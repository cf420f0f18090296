from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.chat.live_lines import LiveLines, cells, fold
from tests.chat.screen_emulator import ScreenEmulator


def test_lines_are_replaced_in_place() -> None:
    screen = ScreenEmulator()
    lines = LiveLines(screen.write)
    lines.show([], ["one", "two"], width=80)
    lines.show([], ["one", "2", "three"], width=80)
    assert screen.text == "one\n2\nthree\n"
    lines.show([], ["x"], width=80)
    assert screen.text == "x\n"


def test_done_lines_stay_above() -> None:
    screen = ScreenEmulator()
    lines = LiveLines(screen.write)
    lines.show([], ["one", "two"], width=80)
    lines.show(["one"], ["two", "three"], width=80)
    lines.show(["two"], [], width=80)
    assert screen.text == "one\ntwo\n"


def test_only_what_differs_is_written_and_at_once() -> None:
    written: list[str] = []
    lines = LiveLines(written.append)
    lines.show([], ["one", "two"], width=80)
    lines.show([], ["one", "two"], width=80)
    lines.show([], ["one", "two!"], width=80)
    assert len(written) == 2
    assert "one" not in written[1]


@pytest.mark.parametrize("length", [79, 80, 81, 160, 161])
def test_wide_line_that_is_done_is_wrapped_by_the_terminal(length: int) -> None:
    screen = ScreenEmulator()
    lines = LiveLines(screen.write)
    lines.show([], ["a", *fold("x" * length, 79), "tail"], width=80)
    lines.show(["a", "x" * length], ["tail", "more"], width=80)
    assert screen.text == f"a\n{'x' * length}\ntail\nmore\n"
    lines.show([], ["end"], width=80)
    assert screen.text == f"a\n{'x' * length}\nend\n"


def test_rows_of_a_line_have_its_colours() -> None:
    line = "ab\x1b[31mcdef\x1b[0mg\u6f22h"
    assert fold(line, 3) == ["ab\x1b[31mc\x1b[0m", "\x1b[31mdef\x1b[0m", "g\u6f22", "h"]
    assert fold(line, 10) == [line]


@given(st.text("ab \u6f22\u0301", max_size=60), st.integers(2, 20))
def test_rows_are_all_of_a_line_and_no_wider_than_told(line: str, width: int) -> None:
    rows = fold(line, width)
    assert "".join(rows) == line
    assert all(cells(row) <= width for row in rows)


def test_narrower_terminal_has_wrapped_the_lines() -> None:
    written: list[str] = []
    lines = LiveLines(written.append)
    lines.show([], ["\x1b[1mabcdefghij\x1b[0m", "k"], width=20)
    lines.show([], ["abcd"], width=5)
    assert written[1].startswith("\r\x1b[3A\x1b[J")
