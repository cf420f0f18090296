"""The `/` commands there are, and how a line becomes one."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True, slots=True)
class Command:
    name: str
    argument: str  # as the help shows it; empty: takes none
    summary: str

    @property
    def usage(self) -> str:
        return f"/{self.name} {self.argument}".rstrip()


COMMANDS = (
    Command("model", "[NAME]", "ask another model, or show which one is asked"),
    Command("system", "[TEXT|-]", "set the system prompt, show it, or remove it with -"),
    Command("save", "[--force] FILE", "write the conversation to a file"),
    Command("load", "FILE", "go on with the conversation of a file"),
    Command("clear", "", "forget the conversation; the system prompt stays"),
    Command("retry", "", "ask the last question again"),
    Command("usage", "", "tokens and times of this session"),
    Command("help", "", "show this"),
    Command("exit", "", "leave, as do /quit and Ctrl-D"),
)
_BY_NAME = {command.name: command for command in COMMANDS}
_ALIASES = {"quit": "exit", "q": "exit", "?": "help"}
_LEAVING = {"exit", "quit"}  # without the slash, too


@dataclass(frozen=True, slots=True)
class Invocation:
    name: str
    argument: str


class UnknownCommand(Exception):
    """Its text is what to tell the person."""


def parse_command(line: str) -> Invocation | None:
    """None for what is a question. Raises UnknownCommand.

    A question that begins with a slash takes a blank in front.
    """
    word, _, argument = line.rstrip().partition(" ")
    if line.strip().lower() in _LEAVING:
        return Invocation("exit", "")
    if not line.startswith("/"):
        return None
    name, _, rest = word[1:].partition("\n")
    argument = f"{rest} {argument}".strip()
    name = _ALIASES.get(name.lower(), name.lower())
    command = _BY_NAME.get(name)
    if command is None:
        raise UnknownCommand(_hint(word.partition("\n")[0], name))
    if argument and not command.argument:
        raise UnknownCommand(f"/{name} takes nothing after it, and was given {argument[:40]!r}")
    return Invocation(name, argument)


def _hint(word: str, name: str) -> str:
    close = get_close_matches(name, _BY_NAME, n=1)
    meant = f"did you mean /{close[0]}?" if close else "/help lists those there are"
    return f"there is no {word[:40]!r}; {meant} (a blank in front makes it a question)"
