from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.chat.blocks import split_blocks


@pytest.mark.parametrize(
    ("text", "done", "rest"),
    [
        ("", [], [""]),
        ("A paragraph", [], ["A paragraph"]),
        ("One.\n\nAnother", ["One.\n"], ["Another"]),
        ("# Title\ntext of it", ["# Title"], ["text of it"]),
        ("- a\n- b\n\n  still b\n- c", [], ["- a\n- b\n\n  still b\n- c"]),
        ("```\ncode\n\nmore", [], ["```\ncode\n\nmore"]),
        ("```\ncode\n```\nafter it", ["```\ncode\n```"], ["after it"]),
        # Too little of a line to know: it may become `-x`, `---` or `- item`.
        ("One.\n\n-", [], ["One.\n", "-"]),
        ("<div>\n\ntext is text", ["<div>\n"], ["text is text"]),
    ],
)
def test_block_is_done_when_another_one_has_begun(
    text: str, done: list[str], rest: list[str]
) -> None:
    assert split_blocks(text) == (done, rest)


@given(st.text("ab #->`|\n1.[]:*", max_size=60))
def test_nothing_is_lost(text: str) -> None:
    done, rest = split_blocks(text)
    assert "\n".join([*done, *rest]) == text
    assert rest
