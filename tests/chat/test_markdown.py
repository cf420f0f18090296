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


WORDS = " ".join(["word"] * 30)


@pytest.mark.parametrize("text", [WORDS, f"* a\n  ```\n  {WORDS}\n  ```", f"> ```\n> {WORDS}"])
def test_long_lines_are_wrapped_and_nothing_of_them_is_lost(text: str) -> None:
    lines = _lines(text)
    assert all(len(line) <= 40 for line in lines)
    assert sum(line.count("word") for line in lines) == 30


@pytest.mark.parametrize("code", [WORDS, "x" * 1000, "  " + " " * 90 + "a  b" + "\u6f22" * 50])
@pytest.mark.parametrize("language", ["", "python"])
def test_long_lines_of_code_stay_whole(language: str, code: str) -> None:
    assert _lines(f"```{language}\n1\n{code}\n\n2\n```")[1:-1] == ["1", code, "", "2"]


@pytest.mark.parametrize("depth", [5, 19, 21, 45, 200])
@pytest.mark.parametrize("ordered", [False, True])
def test_what_is_nested_deep_is_shown_in_any_case(depth: int, ordered: bool) -> None:
    mark, step = ("1. ", 3) if ordered else ("- ", 2)
    text = "\n".join(f"{' ' * step * level}{mark}L{level}." for level in range(depth))
    shown = "".join("".join(_lines(text, width=79)).split())
    assert all(f"L{level}." in shown for level in range(depth))


def test_quotes_within_quotes_are_shown_however_many() -> None:
    assert "end" in "\n".join(_lines(">" * 500 + " end"))


def test_no_style_needs_a_certain_background() -> None:
    """Whatever other versions of the library give those that no answer had here."""
    for name, style in THEME.styles.items():
        if name.startswith("markdown."):
            assert style.bgcolor is None, name
            assert style.color is None or style.color.name in {"cyan", "green", "magenta"}, name


def test_colours_are_right_on_any_background() -> None:
    """No backgrounds, no white, black, yellow or bright ones; every line ends its own."""
    text = "# T\n\n`c` and [l](u)\n\n> q\n\n1. x\n\n* y\n\n---\n\n"
    text += '```python\ndef f(): return "s" + 1  # c\n```'
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
