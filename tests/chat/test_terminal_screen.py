from __future__ import annotations

import io

import pytest

from llm_proxy.chat.markdown_view import MarkdownView
from llm_proxy.chat.raw_view import RawView
from llm_proxy.chat.terminal_screen import TerminalScreen


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_messages_are_apart_from_answers_and_harmless() -> None:
    out, messages = io.StringIO(), io.StringIO()
    screen = TerminalScreen(out, messages)
    screen.tell("told\x1b[2J")
    screen.fail("failed [bold]")
    screen.figures("12 tokens")
    screen.table([("name", "value\x07"), ("longer name", "other")])
    assert out.getvalue() == ""
    lines = [line.rstrip() for line in messages.getvalue().splitlines()]
    assert lines == [
        *("told", "", "Error: failed [bold]", "", "12 tokens", ""),
        *("name          value", "longer name   other", ""),
    ]


def test_trace_is_json() -> None:
    messages = io.StringIO()
    TerminalScreen(io.StringIO(), messages).trace("request", {"model": "m" * 200})
    assert messages.getvalue() == 'request: {\n  "model": "%s"\n}\n' % ("m" * 200)


@pytest.mark.parametrize(
    ("file", "term", "kind"),
    [
        (_Terminal(), "xterm", MarkdownView),
        (_Terminal(), "dumb", RawView),
        (io.StringIO(), "xterm", RawView),
    ],
)
def test_answer_is_markdown_where_it_can_be_drawn(
    monkeypatch: pytest.MonkeyPatch, file: io.StringIO, term: str, kind: type
) -> None:
    monkeypatch.setenv("TERM", term)
    assert isinstance(TerminalScreen(file, io.StringIO()).answer(), kind)
