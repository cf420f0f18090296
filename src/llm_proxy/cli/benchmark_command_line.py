"""The command of a benchmark for its report: as it was given, without its secrets."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import typer

if TYPE_CHECKING:
    from llm_proxy.secrets import Secret

_OF_THE_MOCK: Final = "x-mock-"
MASK: Final = "***"
_SHORTEST: Final = 8
_LONGEST: Final = 2000  # bodies may be long
_HARMLESS_HEADERS: Final = frozenset(
    ("accept", "accept-encoding", "cache-control", "content-type", "user-agent")
)


def command_line(context: typer.Context, secrets: Iterable[Secret]) -> str:
    """Masked by name and by value: a token may stand in a URL or a body, too."""
    words = ["llm-proxy", "benchmark", *_words(context)]
    text = " ".join(shlex.quote(word) if word != MASK else word for word in words)
    text = without_secrets(text, secrets)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def without_secrets(text: str, secrets: Iterable[Secret]) -> str:
    """Where one stands by its value. What is shorter than any key is part of other words."""
    for secret in secrets:
        if len(secret.reveal()) >= _SHORTEST:
            text = text.replace(secret.reveal(), MASK)
    return text


def without_query_values(path: str) -> str:
    """Some APIs take their key there."""
    path, mark, query = path.partition("?")
    names = (part.partition("=") for part in query.split("&"))
    return (
        path
        + mark
        + "&".join(f"{name}{equals}{MASK * bool(value)}" for name, equals, value in names)
    )


def is_from_environment(context: typer.Context, name: str) -> bool:
    return _source(context, name) == "ENVIRONMENT"


def _source(context: typer.Context, name: str) -> str:
    source = context.get_parameter_source(name)
    return "" if source is None else source.name


def _words(context: typer.Context) -> Iterator[str]:
    for parameter in context.command.params:
        name = parameter.name or ""
        if _source(context, name) != "COMMANDLINE":
            continue
        option = max(parameter.opts, key=len)
        value = context.params[name]
        if value is True:
            yield option
            continue
        for one in value if isinstance(value, list | tuple) else [value]:
            yield option
            yield _shown(name, one)


def _shown(name: str, value: Any) -> str:
    text = str(value)
    if name == "token":
        return text if text == "-" else MASK
    if name == "endpoint":
        return without_query_values(text)
    if name == "header":
        header, colon, _ = text.partition(":")
        name = header.strip().lower()
        is_harmless = name in _HARMLESS_HEADERS or name.startswith(_OF_THE_MOCK)
        return text if is_harmless else f"{header}{colon} {MASK}"
    return text
