from __future__ import annotations

import io

import pytest
from rich.console import Console

from llm_proxy.chat.markdown import THEME, markdown_lines


def _lines(text: str, *, width: int = 40, colours: bool = False) -> list[str]:
    system = "standard" if colours else None
    console = Console(
        file=io.StringIO(),
        theme=THEME,
        force_terminal=colours,
        color_system=system,  # type: ignore[arg-type]
        width=200,
    )
    return markdown_lines(console, text, width)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("Some **bold** text", ["Some bold text"]),
        ("\n\n# Title\n\n", ["Title"]),
        ("<b>kept</b>", ["<b>kept</b>"]),
        ("[bank](https://evil.example)", ["bank (https://evil.example)"]),
        ("* a\n* b", [" • a", " • b"]),
        ("---", ["─" * 40]),
        ("", []),
        (
            "| a | b |\n|---|---|\n| 1 | 2 |",
            [" a  b", " ────", " 1  2"],
        ),
    ],
)
def test_markdown_is_laid_out(text: str, lines: list[str]) -> None:
    assert [line.rstrip() for line in _lines(text)] == lines


def test_code_stands_between_lines_and_can_be_copied() -> None:
    lines = _lines("```python\n  x = 1\n\ny\n```", width=20)
    assert lines == ["── python ──────────", "  x = 1", "", "y", "─" * 20]


def test_code_of_an_unknown_language_is_shown_all_the_same() -> None:
    assert _lines("```no-such-language\nx\n```")[1] == "x"


def test_long_lines_are_wrapped_and_nothing_of_code_is_lost() -> None:
    words = " ".join(["word"] * 30)
    for text in (words, f"```\n{words}\n```"):
        lines = _lines(text)
        assert all(len(line) <= 40 for line in lines)
        assert sum(line.count("word") for line in lines) == 30


def test_colours_are_right_on_any_background() -> None:
    """No backgrounds, no white, black, yellow or bright ones; every line ends its own."""
    text = '# T\n\n`c` and [l](u)\n\n> q\n\n1. x\n\n```python\ndef f(): return "s" + 1  # c\n```'
    lines = _lines(text, colours=True)
    codes = {
        code
        for line in lines
        for part in line.split("\x1b[")[1:]
        for code in part.partition("m")[0].split(";")
    }
    assert codes <= {"0", "1", "2", "3", "4", "31", "32", "35", "36"}
    assert {"32", "35", "36"} <= codes
    assert all(line.split("\x1b[")[-1].startswith("0m") for line in lines if "\x1b" in line)
