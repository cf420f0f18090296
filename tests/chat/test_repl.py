from __future__ import annotations

import asyncio
import os
import sys
import termios

import pytest

from llm_proxy.chat.command_effects import CommandEffects
from llm_proxy.chat.conversation import Conversation
from llm_proxy.chat.interrupts import Interrupts
from llm_proxy.chat.line_editor import CtrlC
from llm_proxy.chat.repl import run_repl, silent_keys
from llm_proxy.chat.session import Manner, Session
from tests.chat.fake_screen import FakeClient, FakeScreen


class _Reader:
    def __init__(self, *entries: str | type[Exception]) -> None:
        self._entries = list(entries)

    async def read(self) -> str:
        entry = self._entries.pop(0)
        if isinstance(entry, str):
            return entry
        raise entry


def _run(*entries: str | type[Exception]) -> tuple[int, FakeClient]:
    screen, client = FakeScreen(), FakeClient("yes", "yes")
    session = Session(
        client, Conversation(model="m"), Manner(), screen=screen, interrupts=Interrupts()
    )
    code = asyncio.run(run_repl(_Reader(*entries), CommandEffects(session, screen), screen))
    return code, client


@pytest.mark.parametrize(
    ("entries", "code", "asked"),
    [
        (("a", "/exit"), 0, 1),
        (("a", "b", EOFError), 0, 2),
        ((CtrlC, CtrlC), 130, 0),
        ((CtrlC, "a", CtrlC, EOFError), 0, 1),
    ],
)
def test_it_reads_until_somebody_leaves(
    entries: tuple[str | type[Exception], ...], code: int, asked: int
) -> None:
    found, client = _run(*entries)
    assert (found, len(client.questions)) == (code, asked)


def test_keys_are_silent_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, end = os.openpty()
    with os.fdopen(terminal), os.fdopen(end) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        before = termios.tcgetattr(end)
        with silent_keys():
            flags = termios.tcgetattr(end)
            assert not flags[3] & termios.ECHO
            assert flags[3] & termios.ISIG
            assert not flags[0] & termios.ICRNL
            assert flags[6][termios.VSUSP] == flags[6][termios.VEOF] == b"\0"
            assert flags[6][termios.VINTR] == b"\x03"
        assert termios.tcgetattr(end) == before


def test_terminal_that_has_gone_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, end = os.openpty()
    with os.fdopen(end) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with silent_keys():
            os.close(terminal)


def test_without_a_terminal_there_is_nothing_to_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader) as stdin, os.fdopen(writer):
        monkeypatch.setattr(sys, "stdin", stdin)
        with silent_keys():
            pass
