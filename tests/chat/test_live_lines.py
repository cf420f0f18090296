from __future__ import annotations

from llm_proxy.chat.live_lines import LiveLines
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


def test_narrower_terminal_has_wrapped_the_lines() -> None:
    written: list[str] = []
    lines = LiveLines(written.append)
    lines.show([], ["\x1b[1mabcdefghij\x1b[0m", "k"], width=20)
    lines.show([], ["abcd"], width=5)
    assert written[1].startswith("\r\x1b[3A\x1b[J")
