"""Files of `NAME=value` lines, each with the place it was found at."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path

from llm_proxy.errors import ConfigError

_PLAIN = re.compile(r"[\w./:+=@,-]+", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    name: str
    value: str
    line: int


def read_env_file(path: Path) -> list[Entry]:
    """Entries in the order of the file; nothing is substituted in values."""
    from dotenv.parser import parse_stream

    entries: dict[str, Entry] = {}
    with _open(path) as stream:
        for binding in parse_stream(stream):
            text = binding.original.string
            line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
            if binding.error:
                raise ConfigError(f"{path}:{line}: this line isn't NAME=value")
            if binding.key is None:
                continue
            if binding.value is None:
                raise ConfigError(f"{path}:{line}: {binding.key} has no value; write NAME=value")
            if (earlier := entries.get(binding.key)) is not None:
                raise ConfigError(
                    f"{path}:{line}: {binding.key} was set on line {earlier.line} already; keep one"
                )
            entries[binding.key] = Entry(name=binding.key, value=binding.value, line=line)
    return list(entries.values())


def with_value(path: Path, name: str, value: str) -> str:
    """The text of the file with another value for one of its names, and all else as it is."""
    line = next(entry.line for entry in read_env_file(path) if entry.name == name)
    lines = _open(path).getvalue().rstrip("\n").split("\n")
    lines[line - 1] = f"{name}={quoted(value)}"
    return "\n".join(lines) + "\n"


def _open(path: Path) -> io.StringIO:
    try:
        return io.StringIO(path.read_text("utf-8-sig"), newline=None)
    except OSError as exc:
        raise ConfigError(f"the env file {path} can't be read: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"the env file {path} isn't UTF-8 text; save it as UTF-8") from exc


def quoted(value: str) -> str:
    """The value as it must stand after `NAME=`; it may not hold line ends."""
    if _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
