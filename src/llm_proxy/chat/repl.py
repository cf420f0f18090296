"""Reads what a person types until they leave."""

from __future__ import annotations

import contextlib
import os
import sys
import termios
from collections.abc import Iterator
from typing import Protocol

from llm_proxy.chat.command_effects import CommandEffects
from llm_proxy.chat.line_editor import CtrlC
from llm_proxy.chat.screen import Screen

INTERRUPTED = 130


class Reader(Protocol):
    async def read(self) -> str:
        """Raises EOFError, and CtrlC at an empty prompt."""
        ...


async def run_repl(reader: Reader, effects: CommandEffects, screen: Screen) -> int:
    """The exit code: 0 for whoever leaves, 130 for a second Ctrl-C in a row."""
    is_second = False
    while True:
        try:
            line = await reader.read()
        except EOFError:
            return 0
        except CtrlC:
            if is_second:
                return INTERRUPTED
            is_second = True
            screen.tell("Ctrl-C again leaves, as does Ctrl-D.")
            continue
        is_second = False
        if not await effects.take(line):
            return 0


@contextlib.contextmanager
def silent_keys() -> Iterator[None]:
    """What is typed between two prompts isn't echoed into an answer; the next has it, as typed:
    an Enter, which is a CR, would become a LF on the way. Ctrl-D and Ctrl-Z wait for it, too:
    whoever suspends now would be left without a cursor."""
    try:
        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (OSError, ValueError, termios.error):  # no terminal
        yield
        return
    keys = list(before[6])
    keys[termios.VEOF] = keys[termios.VSUSP] = os.fpathconf(descriptor, "PC_VDISABLE").to_bytes()
    quiet = [
        before[0] & ~termios.ICRNL,
        *before[1:3],
        before[3] & ~termios.ECHO,
        *before[4:6],
        keys,
    ]
    termios.tcsetattr(descriptor, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):  # the terminal was closed
            termios.tcsetattr(descriptor, termios.TCSANOW, before)
