from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.chat.plain_text import PlainText, clean, clean_line


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("a \x1b[31mred\x1b[0m word", "a red word"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]0;never ended\nnext line", "\nnext line"),
        ("\x1bPq#0\x1b\\sixel", "sixel"),
        ("\x9b2Jcleared", "cleared"),
        ("\x1bcreset", "reset"),
        ("back\b\b\bspace\x7f\x00", "backspace"),
        ("Grüße, 世界 🎉", "Grüße, 世界 🎉"),
        ("carriage\r\nreturn", "carriage\nreturn"),
        ("if \u202ereversed\u202c \u2066too\u2069", "if reversed too"),
        ("שלום\u200f, 👩\u200d💻", "שלום\u200f, 👩\u200d💻"),
    ],
)
def test_sequences_and_controls_are_left_out(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


_texts = st.text(st.sampled_from("ab \n\x1b[]0;m\x07\\\x9bP\x9d\x9c\x00é"), max_size=40)


@given(_texts, st.lists(st.integers(0, 40), max_size=6))
def test_cuts_change_nothing_and_no_control_gets_through(text: str, cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), len(text)]
    plain = PlainText()
    found = "".join(plain.feed(text[a:b]) for a, b in zip(bounds, bounds[1:], strict=False))
    found += plain.finish()
    assert found == clean(text)
    assert not any(unicodedata.category(c) == "Cc" and c not in "\n\t" for c in found)


def test_sequence_that_never_ends_does_not_swallow_the_answer() -> None:
    plain = PlainText()
    assert "end" in plain.feed("\x1b]" + "x" * 5000 + "end")


def test_line_of_a_message_is_one_line() -> None:
    assert clean_line("two\r\n  lines\x1b[1m!") == "two lines!"
