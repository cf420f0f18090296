"""Puts a chat together: the client, the terminal or the pipe, and signals."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

import typer

from llm_proxy.errors import ConfigError, WrongUsage

if TYPE_CHECKING:
    from llm_proxy.chat.client import ChatClient
    from llm_proxy.chat.conversation import Conversation
    from llm_proxy.chat.history_file import HistoryFile
    from llm_proxy.chat.interrupts import Interrupts
    from llm_proxy.chat.session import Manner
    from llm_proxy.chat.target import Target
    from llm_proxy.chat.terminal_screen import TerminalScreen

_HISTORY = "chat-history.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What the options ask for."""

    target: Target
    conversation: Conversation
    manner: Manner
    is_verbose: bool


def talk(work: Work, *, keeps_history: bool) -> int:
    """With a person, until they leave; the exit code."""
    from llm_proxy.chat.repl import silent_keys

    with silent_keys():
        return _converse(work, keeps_history=keeps_history)


def _converse(work: Work, *, keeps_history: bool) -> int:
    from llm_proxy.chat.command_effects import CommandEffects
    from llm_proxy.chat.line_editor import LineEditor
    from llm_proxy.chat.repl import run_repl
    from llm_proxy.chat.session import Session
    from llm_proxy.chat.terminal_screen import TerminalScreen

    screen = TerminalScreen(_stdout(), sys.stderr)
    screen.tell(
        f"Chatting with {work.conversation.model} at {work.target.base_url}\n"
        "Enter sends, Alt-Enter begins another line, /help shows more, Ctrl-D leaves."
    )
    history = _history(screen) if keeps_history else None

    async def converse(client: ChatClient, interrupts: Interrupts) -> int:
        session = Session(
            client, work.conversation, work.manner, screen=screen, interrupts=interrupts
        )
        editor = LineEditor(history, has_colours=not os.environ.get("NO_COLOR"))
        # One Ctrl-C too many behind an answer ends nothing: at the prompt it is a key.
        with interrupts.stopping(lambda: None):
            return await run_repl(editor, CommandEffects(session, screen), screen)

    return _run(work, screen, converse)


def answer_stdin(work: Work) -> None:
    """One question, to its end."""
    from llm_proxy.chat.one_shot import LARGEST_QUESTION, ask_once, decode_question
    from llm_proxy.chat.terminal_screen import TerminalScreen

    question = decode_question(sys.stdin.buffer.read(LARGEST_QUESTION + 1))
    if not question:
        raise WrongUsage("nothing came from stdin; write the question there: echo hi | …")
    screen = TerminalScreen(_stdout(), sys.stderr, margin="")

    async def ask(client: ChatClient, interrupts: Interrupts) -> int:
        await ask_once(client, question, work.conversation, work.manner, screen)
        return 0

    _run(work, screen, ask)


def _run(
    work: Work,
    screen: TerminalScreen,
    job: Callable[[ChatClient, Interrupts], Awaitable[int]],
) -> int:
    from llm_proxy.chat.client import ChatClient
    from llm_proxy.chat.interrupts import Interrupts

    interrupts = Interrupts()
    trace = screen.trace if work.is_verbose else None

    async def run() -> int:
        with interrupts.installed():
            async with ChatClient(work.target, trace=trace) as client:
                return await job(client, interrupts)

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        raise typer.Exit(128 + (interrupts.received or 0)) from None


def _stdout() -> TextIO:
    """Files and pipes get an answer as it is, in UTF-8; a terminal what it can show of it."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        if sys.stdout.isatty():
            sys.stdout.reconfigure(errors="replace")
        else:
            sys.stdout.reconfigure(encoding="utf-8")
    return sys.stdout


def _history(screen: TerminalScreen) -> HistoryFile | None:
    """None when there is no place for it: that is no reason not to talk."""
    from llm_proxy.chat.history_file import HistoryFile
    from llm_proxy.settings import load_place

    home = load_place(None).home
    history = HistoryFile(home.path / _HISTORY)
    try:
        home.ensure()
        history.load()
    except ConfigError as exc:
        screen.tell(f"What is typed isn't kept: {exc}.")
        return None
    return history
