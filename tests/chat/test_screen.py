from __future__ import annotations

import io

from llm_proxy.chat.screen import AnswerView, Screen
from llm_proxy.chat.terminal_screen import TerminalScreen
from tests.chat.fake_screen import FakeScreen


def test_terminal_and_fake_are_screens() -> None:
    screens: list[Screen] = [TerminalScreen(io.StringIO(), io.StringIO()), FakeScreen()]
    for screen in screens:
        with screen.answer() as view:
            shown: AnswerView = view
            shown.add("text")
