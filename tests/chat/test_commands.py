from __future__ import annotations

import pytest

from llm_proxy.chat.commands import COMMANDS, Invocation, UnknownCommand, parse_command


@pytest.mark.parametrize(
    ("line", "invocation"),
    [
        ("/model gpt-x", Invocation("model", "gpt-x")),
        ("/MODEL  gpt-x ", Invocation("model", "gpt-x")),
        ("/system Be brief.\nAnd kind.", Invocation("system", "Be brief.\nAnd kind.")),
        ("/system\nBe brief. Or not.", Invocation("system", "Be brief. Or not.")),
        ("/save my chat.json", Invocation("save", "my chat.json")),
        ("/quit", Invocation("exit", "")),
        ("/?", Invocation("help", "")),
        ("exit", Invocation("exit", "")),
        (" Quit ", Invocation("exit", "")),
    ],
)
def test_lines_are_commands(line: str, invocation: Invocation) -> None:
    assert parse_command(line) == invocation


@pytest.mark.parametrize("line", ["hello", " /etc/passwd?", "exit the building", "", "1/2"])
def test_lines_are_questions(line: str) -> None:
    assert parse_command(line) is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/modle x", "did you mean /model?"),
        ("/etc/passwd", "/help lists those there are"),
        ("/clear all", "/clear takes nothing after it"),
        ("/", "there is no '/'"),
    ],
)
def test_unknown_commands_get_a_hint(line: str, words: str) -> None:
    with pytest.raises(UnknownCommand) as caught:
        parse_command(line)
    assert words in str(caught.value)


def test_every_command_is_one_that_is_understood() -> None:
    for command in COMMANDS:
        argument = "x" if command.argument else ""
        assert parse_command(f"/{command.name} {argument}") == Invocation(command.name, argument)
