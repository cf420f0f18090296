"""Pages on terminals, in pipes and in narrow encodings."""

from __future__ import annotations

import pytest

from llm_proxy.benchmark.terminal_page import Page
from tests.benchmark.printed import make_console, text_of


def test_text_is_indented_and_wrapped_to_the_width() -> None:
    console = make_console(width=20)
    Page(console).line("one two three four five", hanging=2)
    assert text_of(console) == "  one two three\n    four five\n"


def test_a_heading_stands_after_a_blank_line_and_a_long_one_is_not_torn_at_words() -> None:
    console = make_console(width=12)
    Page(console).heading("POST http://host/path")
    assert text_of(console) == "\nPOST http://\nhost/path\n"


def test_verbatim_text_is_one_line_however_long() -> None:
    console = make_console(width=10)
    Page(console).verbatim("curl 'and a long word'")
    assert text_of(console) == "  curl 'and a long word'\n"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_a_server_says_cannot_move_the_cursor(is_terminal: bool) -> None:
    console = make_console(is_terminal=is_terminal)
    page = Page(console)
    page.line("a\x1b[2Jb")
    page.table([["c\x1b[31m", "d\x07"]], "lw")
    page.heading("e\x1b]0;title\x07")
    text = text_of(console)
    assert "\x1b[2J" not in text and "\x1b[31m" not in text and "\x1b]" not in text
    assert "\x07" not in text


def test_an_encoding_without_the_letters_gets_others() -> None:
    console = make_console(encoding="ascii")
    page = Page(console)
    page.line("5 µs – 7 µs … 日本")
    assert text_of(console) == "  5 us - 7 us . ??\n"
    assert not page.has_blocks


def test_marks_are_words_in_a_pipe() -> None:
    page = Page(make_console())
    assert (page.mark(True), page.mark(False)) == ("ok", "FAIL")
    page = Page(make_console(is_terminal=True))
    assert (page.mark(True), page.mark(False)) == ("✓", "✗")


def test_markup_of_others_is_text() -> None:
    console = make_console()
    Page(console).line("[red]http://[::1]:80[/red] :smile:")
    assert text_of(console) == "  [red]http://[::1]:80[/red] :smile:\n"


def test_very_wide_terminals_are_not_filled() -> None:
    page = Page(make_console(width=300))
    assert page.width < 120
    assert page.is_wide and not Page(make_console(width=80)).is_wide


def test_no_line_ends_within_a_figure() -> None:
    console = make_console()
    page = Page(console)
    for width in range(60, 78):
        page.line(f"{'x' * width} 5 µs, 95 % p = 0.22")
    lines = text_of(console).splitlines()
    assert not any(line.endswith((" 5", " 95", " p", "=")) for line in lines)
    assert any(line.strip() == "p = 0.22" for line in lines)
