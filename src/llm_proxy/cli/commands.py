"""The commands there are, in the order of the help; each module is imported when it is run.

Measured: importing them all took the help from 2.3 to 3.3 times the time of `import typer`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

# name: where it is, and its line of the help
COMMANDS: dict[str, tuple[str, str]] = {
    "server": ("server:app", "Run the proxy: start, stop and look after a server."),
    "manage": ("manage:app", "Manage the projects, tokens and audit log of a running server."),
    "openai": ("openai:app", "Talk with a model through the proxy, and list the models there are."),
    "setup": ("setup:setup", "Write a configuration, and create the first project and token."),
    "config": ("config:app", "Check the configuration, or show the one in effect."),
    "db": ("db:app", "Look after the database itself, without a server."),
    "mock": ("mock:mock", "Run a local upstream that speaks the OpenAI and Anthropic APIs."),
    "benchmark": (
        "benchmark:benchmark",
        "Measure load and latency of a target, and what a proxy adds to it.",
    ),
    "demo": ("demo:demo", "Show llm-proxy at work on an embedded upstream."),
}


class LazyCommands(TyperGroup):
    """Knows the commands by name and line; has the real one when it is about to run."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        lines = {name: TyperCommand(name, help=line) for name, (_, line) in COMMANDS.items()}
        self.commands = {**lines, **self.commands}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name in COMMANDS else command, rest


def load_command(name: str) -> TyperCommand | TyperGroup:
    module, attribute = COMMANDS[name][0].split(":")
    found = getattr(import_module(f"llm_proxy.cli.{module}"), attribute)
    if isinstance(found, typer.Typer):
        group = get_group(found)
        group.name = name
        return group
    app = typer.Typer(add_completion=False)
    app.command(name)(found)
    command = get_command(app)
    assert isinstance(command, TyperCommand)
    return command
